"""Keeping what is expensive to build for the next that needs it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Idle(Generic[T]):
    """A few things that nobody uses at the moment, each lent to one user at a time.

    Holds no lock: a garbage-collected iterator gives back what it used, at any moment and in any
    thread, possibly in the middle of a call to this object. Every step is one operation of a list,
    which no other thread divides.

    Args:
        most: How many things to keep; the one that was idle for longest goes first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: list[T] = []

    def __len__(self) -> int:
        return len(self._things)

    def take(self, choose: Callable[[list[T]], T | None]) -> T | None:
        """Remove and return one thing.

        Args:
            choose: Given the idle things, the longest idle first, returns the one to take, or None.
        """
        while (chosen := choose(list(self._things))) is not None:
            try:
                self._things.remove(chosen)
            except ValueError:  # another thread took it
                continue
            return chosen
        return None

    def put(self, thing: T) -> None:
        """Keep a thing for the next user."""
        self._things.append(thing)
        if len(self._things) > self._most:
            with suppress(IndexError):  # others took all of them
                self._things.pop(0)

    def clear(self) -> None:
        """Forget the things, and keep none from now on."""
        self._most = 0
        self._things.clear()
