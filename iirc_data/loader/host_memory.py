"""Reuse of the host memory of batches."""

import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray

_SMALL = 1 << 20  # bytes; below this malloc reuses memory itself
_MOST_BLOCKS = 8


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor.

    On the CPU it reuses the memory of an earlier batch that is no longer referenced, if there is
    one. The operating system clears every new page, which for a batch of photographs takes half as
    long as decoding them.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if device.type != "cpu" or size < _SMALL:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(_blocks.lend(size)).view(dtype).view(shape)


class _Blocks:
    """Blocks of memory; a block is lent again once the array made of it is garbage-collected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = []

    def lend(self, size: int) -> NDArray[np.uint8]:
        """Return an array of ``size`` bytes, not initialised."""
        with self._lock:
            free = [n for n, (_, array) in enumerate(self._lent) if array() is None]
            fitting = [n for n in free if size <= self._lent[n][0].size <= 2 * size]
            if fitting:
                block, _ = self._lent.pop(min(fitting, key=lambda n: self._lent[n][0].size))
            else:
                block = np.empty(size, np.uint8)
                if len(self._lent) == _MOST_BLOCKS and free:
                    del self._lent[free[0]]
            array = block[:size]
            if len(self._lent) < _MOST_BLOCKS:
                self._lent.append((block, weakref.ref(array)))
            return array


_blocks = _Blocks()
