"""A choice among the samples and memories of a task, such as a class-balanced one."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iirc_train.buffer.latents import BATCH_SIZE, LatentSource
from iirc_train.buffer.samples import TaskSamples

if TYPE_CHECKING:
    from iirc_train.buffer.base import BufferBase


class Choice(NamedTuple):
    """Some samples of a task, and some memories.

    Attributes:
        samples: Indices in the task's data, int64 (N,), distinct.
        memories: Slots of the buffer, int64 (M,), distinct.
    """

    samples: NDArray[np.int64]
    memories: NDArray[np.int64]


def everything(task_data: TaskSamples, buffer: "BufferBase") -> Choice:
    """Choose all samples of a task and all memories of classes that it does not introduce."""
    return Choice(np.arange(len(task_data)), memories_of_others(task_data, buffer))


def memories_of_others(task_data: TaskSamples, buffer: "BufferBase") -> NDArray[np.int64]:
    """Return the slots of all memories of classes that a task does not introduce, int64 (M,)."""
    new = set(task_data.cur_task)
    return _joined(
        [buffer.get_image_indices_by_class(c) for c in buffer.n_memories_per_class if c not in new]
    )


def balanced(
    task_data: TaskSamples,
    buffer: "BufferBase",
    method: LatentSource | None = None,
    batch_size: int = BATCH_SIZE,
    *,
    has_taken: bool = False,
) -> Choice:
    """Choose all memories, and of each new class as many samples as an earlier class has memories.

    Castro et al., "End-to-end incremental learning" (ECCV 2018), section 3.3: balanced fine-tuning.
    The samples of a new class are those that the buffer would keep of it. Without memories, each
    new class has as many samples as the smallest one.

    Args:
        task_data: The task's data.
        buffer: The memories, which stay as they are.
        method: Computes latents, for buffers that choose memories by them.
        batch_size: Samples per batch when latents are computed.
        has_taken: Whether the buffer has taken memories of the task; those are chosen then, and no
            samples of the task.
    """
    if has_taken and len(buffer):
        return Choice(np.empty(0, np.int64), np.arange(len(buffer)))
    new = list(task_data.cur_task)
    n = max(buffer.n_memories_per_class.values(), default=0)
    if not n:
        n = min(len(task_data.get_image_indices_by_cla(name)) for name in new)
    chosen = buffer.choose(task_data, new, n, method=method, batch_size=batch_size)
    # in IIRC, a sample may be chosen for several classes
    samples = np.unique(_joined(list(chosen.values())))
    return Choice(samples, memories_of_others(task_data, buffer))


def _joined(indices: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *indices])
