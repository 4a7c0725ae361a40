"""Times the parts of a run from outside, by wrapping the functions that compute them."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Stopwatch:
    """Durations of calls.

    Attributes:
        seconds: Name of each part to the duration of each of its calls, in seconds.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def on(self, owner: Any, attribute: str, part: str) -> Iterator[None]:
        """Time every call of a function inside the block.

        Args:
            owner: Class or module that has the function.
            attribute: Name of the function.
            part: Name of the part that it computes.
        """
        timed = getattr(owner, attribute)
        durations = self.seconds.setdefault(part, [])

        @functools.wraps(timed)
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return timed(*args, **kwargs)
            finally:
                durations.append(time.perf_counter() - started)

        setattr(owner, attribute, call)
        try:
            yield
        finally:
            setattr(owner, attribute, timed)

    def total(self, part: str) -> float:
        """Return the duration of all calls of a part, in seconds."""
        return sum(self.seconds[part])

    def mean(self, part: str) -> float:
        """Return the mean duration of a part's calls, in seconds; 0 without calls."""
        durations = self.seconds[part]
        return sum(durations) / max(1, len(durations))
