"""What each process makes for itself: threads survive neither a fork nor pickling."""

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_inherited: list[object] = []


class PerProcess(Generic[T]):
    """A value that a forked or unpickled copy makes again.

    Args:
        make: Makes the value; can be pickled.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made = os.getpid(), make()

    def get(self) -> T:
        """Return this process's value."""
        process, value = self._made
        if process != os.getpid():
            keep_untouched(value)
            value = self._make()
            self._made = os.getpid(), value
        return value

    def __getstate__(self) -> Callable[[], T]:
        return self._make

    def __setstate__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made = os.getpid(), make()


def keep_untouched(value: Any) -> None:
    """Keep what a parent process made: its destructor would wait for threads that are not here."""
    _inherited.append(value)
