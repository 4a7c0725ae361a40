"""The published module of the buffer, re-exported from the modules that define it."""

from iirc_train.buffer.base import BufferBase
from iirc_train.buffer.choice import HerdingBuffer, RandomBuffer
from iirc_train.buffer.latents import class_latents
from iirc_train.buffer.merged import TaskDataMergedWithBuffer, memory_batches

__all__ = [
    "BufferBase",
    "HerdingBuffer",
    "RandomBuffer",
    "TaskDataMergedWithBuffer",
    "class_latents",
    "memory_batches",
]
