"""ER: experience replay from a reservoir."""

import torch

from iirc_train.methods.replay import Buffer, ReplayMethod
from iirc_train.methods.step import Step

__all__ = ["Buffer", "Model"]


class Model(ReplayMethod):
    """Learns from each batch together with memories drawn from a reservoir.

    Chaudhry et al., "On tiny episodic memories in continual learning" (arXiv:1902.10486, 2019),
    algorithms 1 and 2 (reservoir sampling): in each step, a batch of memories is drawn uniformly,
    the network takes a step of SGD on the union of both batches, and the samples of the batch enter
    the reservoir. Memories of the current task are drawn, too. The paper learns in one epoch, from
    batches of 10 samples and 10 memories. ``reservoir_stream`` says what the stream is where there
    are several epochs.

    In IIRC, the loss is the binary cross-entropy of all seen classes; a memory keeps the labels
    that were visible when it entered. Without memories, this is finetuning.
    """

    def _loss(self, step: Step) -> torch.Tensor:
        return self._loss_of_rows(step, slice(None), step.scale)
