"""The replay buffer: which samples of earlier classes to keep, and where."""

from iirc_train.buffer.base import BufferBase
from iirc_train.buffer.class_arrays import Memory
from iirc_train.buffer.columns import Column
from iirc_train.buffer.merged import TaskDataMergedWithBuffer
from iirc_train.buffer.reference_buffer import ReferenceBuffer
from iirc_train.buffer.reservoir_buffer import ReservoirBuffer
from iirc_train.buffer.store import BufferStore
from iirc_train.buffer.strategies import HerdingBuffer, RandomBuffer

__all__ = [
    "BufferBase",
    "BufferStore",
    "Column",
    "HerdingBuffer",
    "Memory",
    "RandomBuffer",
    "ReferenceBuffer",
    "ReservoirBuffer",
    "TaskDataMergedWithBuffer",
]
