"""Finetuning; with a replay buffer, experience replay (ER)."""

import torch

from iirc_train.buffer import RandomBuffer
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.step import Step

Buffer = RandomBuffer


class Model(BaseMethod):
    """Learns every task with the same loss, from the task's samples and the replayed ones.

    The baselines "finetune" and "ER" of Abdelsalam et al. (2021), section 5. With ``ce``, the loss
    covers all seen classes.
    """

    capturable = True
    losses = ("bce", "ce")

    def _loss(self, step: Step) -> torch.Tensor:
        return self._classification_loss(step.output, step.targets, step.in_buffer)
