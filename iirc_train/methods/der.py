"""DER: dark experience replay, which distils the logits that memories had when they were kept."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from iirc_train.buffer import Column
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.replay import Buffer, ForwardPass, ReplayConfig, ReplayMethod
from iirc_train.methods.step import DrawnMemories, Step

__all__ = ["Buffer", "DerConfig", "Model"]


class DerConfig(ReplayConfig):
    """Settings of DER."""

    forward_pass: ForwardPass = "separate"
    der_alpha: Annotated[
        float, Field(ge=0, le=MAX_FACTOR, description="Weight of the distance to kept logits")
    ] = 0.3
    logit_distance: Annotated[
        Literal["mean", "norm", "reference"],
        Role.STATE,
        Field(
            description="Squared distance to kept logits: 'mean' over the classes seen when a "
            "memory was kept, 'norm' for their sum (equation 6 as printed), 'reference' for the "
            "mean over all outputs of the network, as in Mammoth"
        ),
    ] = "mean"
    logit_precision: Annotated[
        Literal["float32", "float16"],
        Role.STATE,
        Field(description="Type of the kept logits"),
    ] = "float32"


class Model(ReplayMethod):
    """Keeps each memory's logits, and pulls the network's towards them.

    Buzzega et al., "Dark experience for general continual learning: a strong, simple baseline"
    (NeurIPS 2020), section 3.1, equation 6 and algorithm 1: the loss of the batch, plus alpha times
    the squared distance between the logits of memories and those kept for them. The logits are
    those of the augmented image in the step in which the memory entered the reservoir; a memory is
    augmented again when it is drawn. Batch and memories pass the network one after the other, as
    algorithm 1 writes them.

    Equation 6 has the squared norm, but the published values of alpha (0.1 to 1) belong to a mean,
    hence the default of ``logit_distance``. The paper's networks have the outputs of all classes
    from the start; it does not say whether outputs of classes not seen yet count. Here, the logits
    of the classes seen when the memory was kept do; the others were never trained.

    In IIRC, the loss of the batch is the binary cross-entropy of all seen classes; the distance of
    logits is the same. Without memories, this is finetuning.
    """

    Config: ClassVar[type[MethodConfig]] = DerConfig
    config: DerConfig

    def memory_columns(self) -> tuple[Column, ...]:
        """See :meth:`BaseMethod.memory_columns`."""
        return (Column("logits", sum(self.n_cla_per_tsk), self.config.logit_precision),)

    def _columns(self, step: Step) -> dict[str, torch.Tensor]:
        return {"logits": self._logits(step)[step.stream].detach()}

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._loss_of_rows(step, step.stream)
        if step.draws:
            loss = loss + self.config.der_alpha * self._distance(step, step.draws[0])
        return loss

    def _logits(self, step: Step) -> torch.Tensor:
        """Return the logits that are kept and compared, (N, classes)."""
        is_reference = self.config.logit_distance == "reference"
        if is_reference and step.all_output is not None:
            return step.all_output
        return step.output

    def _distance(self, step: Step, draw: DrawnMemories) -> torch.Tensor:
        """Return the distance between the logits of memories and those kept for them, a scalar."""
        logits = self._logits(step)[draw.rows]
        kept = draw.columns["logits"][:, : logits.shape[1]].float()
        is_kept = ~kept.isnan()
        squares = torch.where(is_kept, logits - kept, 0.0).square().sum(dim=1)
        if self.config.logit_distance != "norm":
            squares = squares / is_kept.sum(dim=1)
        return draw.scale * squares.mean()
