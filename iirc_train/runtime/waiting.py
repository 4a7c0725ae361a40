"""How long a network waits for its batches."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch

NOTABLE_SHARE = 0.2
"""Share of the training time from which on loading counts as the limit of a run."""

T = TypeVar("T")


class Clock(Protocol):
    """Marks points in the work of a device, and measures the time between two of them."""

    def mark(self) -> Any:
        """Return a mark that the device passes after all work that it was given before."""

    def between(self, first: Any, second: Any) -> float | None:
        """Return the seconds between two marks; None if the device has not passed both yet."""

    def wait(self, mark: Any) -> None:
        """Wait until the device has passed a mark."""


class CPUClock:
    """The clock of a network on the CPU, which has computed its work when a mark is made."""

    def mark(self) -> float:
        """See :class:`Clock`."""
        return time.perf_counter()

    def between(self, first: float, second: float) -> float:
        """See :class:`Clock`."""
        return second - first

    def wait(self, mark: float) -> None:
        """See :class:`Clock`."""


class CUDAClock:
    """The clock of a network on a GPU: marks are events in its current stream.

    Making and comparing marks does not synchronise with the GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """See :class:`Clock`."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float | None:
        """See :class:`Clock`."""
        if not second.query():  # type: ignore[no-untyped-call]
            return None
        milliseconds: float = first.elapsed_time(second)
        return milliseconds / 1000

    def wait(self, mark: torch.cuda.Event) -> None:
        """See :class:`Clock`."""
        mark.synchronize()


class Waiting:
    """Measures how long a network waits for its batches.

    A mark is made before a batch is fetched, after all work of the step before it, and another one
    after the batch was fetched. The network waits between these marks.

    - On a CPU this is the time that fetching the batches takes.
    - On a GPU the calling thread runs ahead of the device. The time that the thread spends in
      fetching is only an upper bound, because meanwhile the device may compute earlier steps. The
      device's own times are therefore compared: from the end of a step to the point from which the
      device could start the next one. This includes what the device itself does to a batch in the
      stream of the network (copying, resident augmentation, normalisation), and excludes the time
      in which it waits for the operations of a step to be launched.

    Args:
        clock: The clock of the network's device.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way: deque[tuple[Any, Any]] = deque()
        self._seconds = 0.0

    @classmethod
    def on(cls, device: torch.device) -> "Waiting":
        """Return a measurement for a network on a device."""
        return cls(CUDAClock(device) if device.type == "cuda" else CPUClock())

    def each(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches, and measure how long the network waits for each."""
        fetched, mark = iter(batches), self._clock.mark
        while True:
            asked = mark()
            try:
                batch = next(fetched)
            except StopIteration:
                return
            self._under_way.append((asked, mark()))
            self._add_passed()
            yield batch

    def seconds(self) -> float:
        """Return the seconds waited so far, once the device has arrived at the latest batch."""
        if self._under_way:
            self._clock.wait(self._under_way[-1][1])
            self._add_passed()
        return self._seconds

    def _add_passed(self) -> None:
        while self._under_way:
            waited = self._clock.between(*self._under_way[0])
            if waited is None:
                return
            self._seconds += waited
            self._under_way.popleft()
