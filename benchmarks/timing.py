"""Timing contenders fairly: they take turns, and medians are compared."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Timing(Generic[T]):
    """How long a contender's runs took, and what they gave.

    Attributes:
        seconds: Duration of each run.
        results: What each run returned.
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
    """Time contenders in turns, so that what slows the machine for a while slows them all.

    Args:
        contenders: For each name what to run.
        runs: Runs of each.
        before_each: Called before every run, untimed.

    Returns:
        A timing for each name.
    """
    timings: dict[str, Timing[T]] = {name: Timing() for name in contenders}
    for _ in range(runs):
        for name, run in contenders.items():
            before_each()
            started = time.perf_counter()
            result = run()
            timings[name].seconds.append(time.perf_counter() - started)
            timings[name].results.append(result)
    return timings
