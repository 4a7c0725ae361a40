"""How many transfers to run at the same time, from what earlier ones have shown."""

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from threading import Lock
from typing import Self

AT_FIRST = 4
"""Number of transfers to begin with, before anything is known about the link."""

_MARGIN = 1 << 22  # bytes: transfers report their bytes in parts
_ENOUGH = 1 << 18  # bytes that tell something about the rate
_WORTH = 0.4  # of its share, by which one more transfer must raise the rate
_LONGEST_REST = 64  # transfers between trials
_LATENCIES = 9


class Pace:
    """Decides when the next transfer begins.

    The fewer transfers share a link, the sooner the one that is needed first has arrived; but while
    a server prepares its answer, the link must not be idle. So the next transfer begins as soon as
    the bytes to come of those in flight are fewer than the link carries until its first byte. If
    a server limits each transfer, more of them run at a time, as long as that raises the rate.

    Args:
        most: Largest number of transfers at a time.
        clock: Returns the time in seconds.

    Attributes:
        changed: Called when another transfer may begin.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self.changed: Callable[[], object] = lambda: None
        self.clock = clock
        self._lock = Lock()
        self._in_flight: set[Course] = set()
        self._received = 0
        self._rate = 0.0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._level = AT_FIRST - 1
        self._rate_before = 0.0
        self._until_change = AT_FIRST
        self._step = -1
        self._is_trial = False
        self._rest = AT_FIRST

    def may_begin(self) -> bool:
        """Return whether another transfer may begin."""
        with self._lock:
            return self._may_begin()

    def _may_begin(self) -> bool:
        n = len(self._in_flight)
        if n >= self._most:
            return False
        if not self._rate:
            return n < AT_FIRST
        to_come = sum(course.left for course in self._in_flight)
        mean = to_come / n if n else 0.0
        on_the_way = self._rate * median(self._latencies)
        return to_come <= on_the_way + _MARGIN + (self._level - 1) * mean

    def begin(self, size: int) -> "Course":
        """Begin a transfer.

        Args:
            size: Number of bytes to come.
        """
        course = Course(self, size)
        with self._lock:
            self._in_flight.add(course)
        return course

    def answered(self, course: "Course") -> None:
        """Record that a server begins to answer."""
        with self._lock:
            self._answered(course)

    def _answered(self, course: "Course") -> None:
        if course.answered is None:
            course.answered = self.clock()
            course.received_before = self._received
            self._latencies.append(course.answered - course.started)

    def received(self, course: "Course", size: int) -> None:
        """Record that bytes have arrived."""
        with self._lock:
            self._received += size
            course.left = max(0, course.left - size)
            is_known = self._received - course.received_before >= _ENOUGH
            if course.answered is not None and not self._rate and is_known:
                self._rate = self._rate_during(course)
            may_begin = self._may_begin()
        if may_begin:
            self.changed()

    def end(self, course: "Course", *, is_complete: bool) -> None:
        """Record that a transfer has ended; only the first call counts."""
        with self._lock:
            if course not in self._in_flight:
                return
            self._in_flight.remove(course)
            if is_complete:
                self._learn(course)
        self.changed()

    def _learn(self, course: "Course") -> None:
        if course.answered is None:  # all came at once: nothing is known but the whole
            course.answered = course.started
            self._latencies.append(self.clock() - course.started)
        rate = self._rate_during(course)
        self._rate = (self._rate + rate) / 2 if self._rate else rate
        self._until_change -= 1
        if self._until_change <= 0:
            self._change_level()

    def _change_level(self) -> None:
        """Try another number of transfers, and keep it if it raises the rate, or does not lower it.

        The number goes up while that pays, and later down while that costs nothing.
        """
        is_kept = True
        if self._is_trial:
            worth = self._step * _WORTH / (self._level - self._step + 1)
            is_kept = self._rate > (1 + worth) * self._rate_before
        can_go_on = 1 <= self._level + self._step <= self._most
        if is_kept and can_go_on:
            self._is_trial, self._rate_before = True, self._rate
            self._level += self._step
            self._until_change = self._level + 2  # the next ones began at the former level
            return
        if not is_kept:
            self._level -= self._step
        self._is_trial, self._step = False, -self._step
        self._until_change = self._rest = min(2 * self._rest, _LONGEST_REST)

    def _rate_during(self, course: "Course") -> float:
        seconds = self.clock() - (course.answered or course.started)
        return (self._received - course.received_before) / max(seconds, 1e-6)


class Course:
    """A transfer in flight.

    Attributes:
        left: Number of bytes to come.
        started: When it started, in seconds.
        answered: When the server began to answer, if that is known.
        received_before: Bytes of all transfers that had arrived by then.
    """

    def __init__(self, pace: Pace, size: int) -> None:
        self._pace = pace
        self.left = size
        self.started = pace.clock()
        self.answered: float | None = None
        self.received_before = pace._received

    def requested(self) -> None:
        """Record that the request is sent now; until here the transfer has waited for room."""
        self.started = self._pace.clock()

    def begins(self) -> None:
        """Record that the server begins to answer."""
        self._pace.answered(self)

    def received(self, size: int) -> None:
        """Record that bytes have arrived."""
        self._pace.received(self, size)

    def end(self, *, is_complete: bool) -> None:
        """Record the end; only the first call counts."""
        self._pace.end(self, is_complete=is_complete)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end(is_complete=False)
