"""Memory for batches."""

import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray

_SMALL = 1 << 20  # bytes that malloc has at hand
_MOST_BLOCKS = 8


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a tensor that is not initialised.

    On the CPU its memory is that of an earlier batch which nobody holds any more, where there is
    one: the system clears every page that it hands out, which for a batch of photographs takes as
    long as half of their decoding.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if device.type != "cpu" or size < _SMALL:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(_blocks.lend(size)).view(dtype).view(shape)


class _Blocks:
    """Blocks of memory that are lent again once the array in which one was lent is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = []

    def lend(self, size: int) -> NDArray[np.uint8]:
        """Return so many bytes."""
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
