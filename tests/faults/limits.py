"""Limits of time and memory for one case."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HangError(BaseException):
    """A case exceeded its time limit; not an ``Exception``, so nothing catches it by accident."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`HangError` in the main thread if the block takes longer."""

    def stop(number: int, frame: object) -> None:
        raise HangError(f"not finished after {seconds} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Limit how many bytes the address space of this process may grow by."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
