"""A validation part of a task's samples and memories, which training does not show."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iirc_train.buffer.choice import Choice, everything
from iirc_train.buffer.samples import TaskSamples

if TYPE_CHECKING:
    from iirc_train.buffer.base import BufferBase


def hold_out(
    task_data: TaskSamples, buffer: "BufferBase", fraction: float
) -> tuple[Choice, Choice]:
    """Split the samples of a task and the memories of earlier classes into two parts.

    Wu et al., "Large scale incremental learning" (CVPR 2019), section 4: the validation part is
    balanced. Of each earlier class with at least two memories, it has the given fraction of them,
    rounded down, but at least one: memories at equal distances in their order of importance, so
    that both parts represent the class. Of each new class, it has as many samples as of the
    earlier class with the most, the last ones in an order that ``task_data`` draws from its seed,
    and at least one remains for training.

    The split depends only on the arguments, so it is the same in each process and after a
    resumption. It needs no validation samples of the benchmark.

    Args:
        task_data: The task's data. A class may be drawn again, so its shuffled order must be
            repeatable.
        buffer: The memories of earlier tasks.
        fraction: Fraction of the memories of a class, above 0 and below 1.

    Returns:
        The part for training, and the part for validation, which is empty without memories.
    """
    new = list(task_data.cur_task)
    earlier = [c for c, n in buffer.n_memories_per_class.items() if n and c not in new]
    memories = [_spread(buffer.get_image_indices_by_class(c), fraction) for c in earlier]
    n = max(map(len, memories), default=0)
    samples = [_last(task_data.get_image_indices_by_cla(c, shuffle=True), n) for c in new]
    held = Choice(_union(samples), _union(memories))
    shown = everything(task_data, buffer)
    return Choice(*(np.setdiff1d(a, b) for a, b in zip(shown, held, strict=True))), held


def _spread(slots: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Return a fraction of a class's memories, at equal distances."""
    if len(slots) < 2:
        return slots[:0]
    n = max(1, int(fraction * len(slots) + 1e-9))  # 0.29 * 100 is 28.999…
    return slots[((np.arange(n) + 0.5) * len(slots) / n).astype(np.int64)]


def _last(indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the last n indices, but never all."""
    n = min(n, len(indices) - 1)
    return np.asarray(indices, np.int64)[len(indices) - n :] if n > 0 else np.empty(0, np.int64)


def _union(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))
