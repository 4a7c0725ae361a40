"""ER-ACE: experience replay with an asymmetric cross-entropy."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from iirc_train.config.settings import Role
from iirc_train.methods.replay import Buffer, ForwardPass, ReplayConfig, ReplayMethod
from iirc_train.methods.step import Step
from iirc_train.models.cosine_linear import with_cosine_layer

__all__ = ["Buffer", "Model"]


class Model(ReplayMethod):
    """Lets new samples compete with the classes of their batch only, and memories with all classes.

    Caccia et al., "New insights on reducing abrupt representation change in online continual
    learning" (ICLR 2022), section 4.2: the cross-entropy of the batch over the classes in it, so
    that it does not push away the representations of earlier ones, plus the cross-entropy of the
    drawn memories over all seen classes. Without memories, only the first of them is left.

    In IIRC, both are binary cross-entropies: a class that no sample of the batch shows adds nothing
    to the loss of the batch.
    """

    class Config(ReplayConfig):
        """Settings of ER-ACE."""

        forward_pass: ForwardPass = "separate"
        cosine_head: Annotated[
            bool,
            Role.STATE,
            Field(description="Classify by ten times the cosine, as the authors' code does"),
        ] = False
        first_task: Annotated[
            Literal["paper", "reference"],
            Role.STATE,
            Field(description="'reference' learns the first task by plain training, as Mammoth"),
        ] = "paper"

    config: Config

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        if not self.config.cosine_head:
            return net
        return with_cosine_layer(net, sum(self.n_cla_per_tsk), sigma=10.0, epsilon=1e-5)

    def _loss(self, step: Step) -> torch.Tensor:
        if self.cur_task_id == 0 and self.config.first_task == "reference":
            return self._loss_of_rows(step, step.stream)
        absent = step.total(step.targets[step.stream].sum(dim=0)) == 0
        loss = self._loss_of_rows(step, step.stream, without=absent)
        for memories in step.draws:
            loss = loss + self._loss_of_rows(step, memories.rows, memories.scale)
        return loss
