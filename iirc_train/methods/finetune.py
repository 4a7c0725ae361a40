"""Finetuning; with a buffer, experience replay."""

import torch

from iirc_train.buffer.buffer import RandomBuffer
from iirc_train.methods.base_method import BaseMethod

Buffer = RandomBuffer


class Model(BaseMethod):
    """Learns every task with the same loss, on its samples and the replayed ones.

    The baselines "finetune" and "ER" of Abdelsalam et al. (2021), section 5.
    """

    def _loss(
        self,
        output: torch.Tensor,
        latent: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        in_buffer: torch.Tensor,
    ) -> torch.Tensor:
        return self._bce(output, y, in_buffer)
