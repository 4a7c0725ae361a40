"""A pool of idle objects that are expensive to build."""

from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Idle(Generic[T]):
    """A pool of idle objects, each lent to one user at a time.

    It holds no lock, because a garbage-collected iterator returns its object at any moment and in
    any thread, possibly during another call to this pool. Each step is one list operation, which is
    atomic.

    Args:
        most: Number of objects to keep; beyond it the one that was idle for longest is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: list[T] = []

    def __len__(self) -> int:
        return len(self._things)

    def take(self, choose: Callable[[list[T]], T | None]) -> T | None:
        """Remove and return an object.

        Args:
            choose: Given the idle objects, the longest idle first, returns the one to take or None.
        """
        while (chosen := choose(list(self._things))) is not None:
            try:
                self._things.remove(chosen)
            except ValueError:  # another thread took it
                continue
            return chosen
        return None

    def put(self, thing: T) -> None:
        """Keep an object for the next user."""
        self._things.append(thing)
        if len(self._things) > self._most:
            with suppress(IndexError):  # other threads took all of them
                self._things.pop(0)

    def clear(self) -> None:
        """Drop all objects, and keep none from now on."""
        self._most = 0
        self._things.clear()
