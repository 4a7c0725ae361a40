"""The training step of a method that draws memories, and whose samples become memories."""

import torch

from iirc_data.loader import Batch
from iirc_train.buffer import ReservoirBuffer
from iirc_train.methods.base_method import BaseMethod


class RememberingStep:
    """Learns from a batch, then lets its samples enter the reservoir.

    Args:
        method: The method.
        buffer: The buffer that the batch's memories were drawn from.
    """

    def __init__(self, method: BaseMethod, buffer: ReservoirBuffer) -> None:
        self._method, self._buffer = method, buffer

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn from a batch; see :meth:`BaseMethod.training_step`."""
        outputs = self._method.training_step(self._buffer.with_columns(batch))
        columns = self._method.columns_of_step
        self._buffer.remember(batch, columns, self._method.cur_task_id)
        self._method.columns_of_step = {}
        return outputs
