"""What a reader will read: the window of blocks that it needs next."""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ReadingPlan(Protocol):
    """What a reader has announced to read."""

    def is_ready(self, n: int) -> bool:
        """Return whether the next ``n`` samples can be read without waiting for a transfer."""

    def advance(self, n: int) -> None:
        """Record that the reader has read ``n`` more samples."""

    def close(self) -> None:
        """Record that the reader reads no more."""


class NoPlan:
    """The plan for a dataset of which nothing needs to be fetched."""

    def is_ready(self, n: int) -> bool:
        """Return True."""
        return True

    def advance(self, n: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Plan:
    """The blocks that a reader needs, in order, and how far it has come.

    The window is the distinct blocks of the samples to come, up to a number of bytes.

    Args:
        blocks: int64 (N,), the block of each sample, in the order of reading.
        sizes: int64 (B,), bytes of each block.
        most: Bytes of the window.
        least: Number of blocks that may exceed ``most``.
    """

    def __init__(
        self, blocks: NDArray[np.int64], sizes: NDArray[np.int64], most: int, least: int
    ) -> None:
        self._blocks = blocks
        self._sizes = sizes
        self._most = most
        self._least = least
        self._start = self._stop = 0
        self._bytes = 0
        self._counts: Counter[int] = Counter()

    def __contains__(self, block: int) -> bool:
        return block in self._counts

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._counts))

    def following(self, n: int) -> list[int]:
        """Return the distinct blocks of the next ``n`` samples."""
        found = self._blocks[self._start : self._start + n].tolist()
        return list(dict.fromkeys(found))

    def advance(self, n: int) -> list[int]:
        """Record that ``n`` more samples were read; return the blocks new in the window."""
        stop = min(self._start + n, len(self._blocks))
        for block in self._blocks[self._start : min(stop, self._stop)].tolist():
            self._counts[block] -= 1
            if not self._counts[block]:
                del self._counts[block]
                self._bytes -= int(self._sizes[block])
        self._start = stop
        self._stop = max(self._stop, stop)
        new: list[int] = []
        while self._stop < len(self._blocks):
            block = int(self._blocks[self._stop])
            if block not in self._counts:
                size = int(self._sizes[block])
                if self._bytes + size > self._most and len(self._counts) >= self._least:
                    break
                self._bytes += size
                new.append(block)
            self._counts[block] += 1
            self._stop += 1
        return new
