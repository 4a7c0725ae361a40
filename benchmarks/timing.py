"""Times contenders fairly: their runs alternate, and medians are compared."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Timing(Generic[T]):
    """Durations and results of a contender's runs.

    Attributes:
        seconds: Duration of each run in seconds.
        results: Result of each run.
    """

    seconds: list[float] = field(default_factory=list)
    results: list[T] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median duration in seconds."""
        return median(self.seconds)


def interleaved(
    contenders: Mapping[str, Callable[[], T]],
    runs: int,
    before_each: Callable[[], object] = lambda: None,
) -> dict[str, Timing[T]]:
    """Time contenders in alternation, so that a temporary slowdown affects all of them.

    Rounds of all contenders that take a second or more print a line each, to standard error.

    Args:
        contenders: The functions to time, by name.
        runs: Number of runs of each.
        before_each: Called before every run; not timed.

    Returns:
        The timings, by name.
    """
    timings: dict[str, Timing[T]] = {name: Timing() for name in contenders}
    for number in range(1, runs + 1):
        of_round = time.perf_counter()
        for name, run in contenders.items():
            before_each()
            started = time.perf_counter()
            result = run()
            timings[name].seconds.append(time.perf_counter() - started)
            timings[name].results.append(result)
        seconds = time.perf_counter() - of_round
        if seconds >= 1:
            print(f"round {number} of {runs}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return timings
