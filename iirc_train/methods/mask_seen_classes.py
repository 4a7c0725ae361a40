"""Finetuning with the classes of earlier tasks masked out of the loss."""

import torch

from iirc_train.buffer import RandomBuffer
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.step import Step

Buffer = RandomBuffer


class Model(BaseMethod):
    """Learns every task with a loss over only the classes that the task introduces.

    With ``ce``, the loss is the mean over the samples with a label among these classes; a memory of
    an earlier class says nothing about them.
    """

    losses = ("bce", "ce")

    def _loss(self, step: Step) -> torch.Tensor:
        new = slice(self.n_old_classes, None)
        output, targets = step.output[:, new], step.targets[:, new]
        loss = self._classification_loss(output, targets, step.in_buffer)
        if self.config.loss == "bce":
            return loss
        return step.average(loss * len(output), targets.sum())
