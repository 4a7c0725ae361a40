"""DER++: dark experience replay that also replays the labels of memories."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from iirc_train.config.experiment import MAX_FACTOR
from iirc_train.methods import der
from iirc_train.methods.der import Buffer, DerConfig
from iirc_train.methods.step import Step

__all__ = ["Buffer", "Model"]


class Model(der.Model):
    """Adds to :class:`der.Model` the loss of a second draw of memories, by their labels.

    Buzzega et al., "Dark experience for general continual learning: a strong, simple baseline"
    (NeurIPS 2020), section 3.1, equation 7 and algorithm 2: the loss of the batch, plus alpha times
    the distance of the logits of one draw, plus beta times the loss of an independent draw.

    In IIRC, both losses are the binary cross-entropy of all seen classes, and the labels of a
    memory are those that were visible when it was kept.
    """

    class Config(DerConfig):
        """Settings of DER++."""

        der_beta: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight of the loss of memories' labels")
        ] = 0.5

    config: Config
    n_draws: ClassVar[int] = 2

    def _loss(self, step: Step) -> torch.Tensor:
        loss = super()._loss(step)
        if step.draws:
            labelled = step.draws[1]
            of_labels = self._loss_of_rows(step, labelled.rows, labelled.scale)
            loss = loss + self.config.der_beta * of_labels
        return loss
