"""Linear probe: the output layer, trained on the latents of a frozen network."""

import torch

from iirc_train.buffer import RandomBuffer
from iirc_train.methods.frozen import FrozenConfig, FrozenMethod
from iirc_train.methods.step import Step

Buffer = RandomBuffer


class Model(FrozenMethod):
    """Learns every task like finetuning, but only its output layer.

    The loss covers all seen classes: with ``bce``, in IIRC too. By default, a task has one epoch,
    as in online learning; the first task of an IIRC benchmark has two. Memories, if there are any,
    are learned like samples of the task.

    The state is the optimizer's: C(D + 1) numbers of 4 bytes with momentum, for C classes of the
    benchmark and latents of D values.
    """

    class Config(FrozenConfig):
        """Settings of the linear probe."""

        lr: float = 0.01

    losses = ("bce", "ce")

    def _loss(self, step: Step) -> torch.Tensor:
        return self._classification_loss(step.output, step.targets, step.in_buffer)
