"""The published module of the buffer, re-exported from the modules that define it."""

from iirc_train.buffer.base import BufferBase
from iirc_train.buffer.latents import class_latents
from iirc_train.buffer.merged import TaskDataMergedWithBuffer, memory_batches
from iirc_train.buffer.strategies import HerdingBuffer, RandomBuffer

__all__ = [
    "BufferBase",
    "HerdingBuffer",
    "RandomBuffer",
    "TaskDataMergedWithBuffer",
    "class_latents",
    "memory_batches",
]
