"""Cross-entropy and distillation, weighted by the fraction of earlier classes: WA and BiC."""

from typing import Annotated, Any

import torch
from pydantic import Field

from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.losses import distillation_loss
from iirc_train.methods.step import Step


class DistillingConfig(MethodConfig):
    """Settings of a method that distils the outputs for earlier classes."""

    distillation_temperature: Annotated[
        float, Field(gt=0, le=MAX_FACTOR, description="Temperature of the distillation")
    ] = 2.0


class DistillingMethod(BaseMethod):
    """Learns with (1 - λ) times the cross-entropy plus λ times the distillation.

    λ is the fraction of earlier classes among those seen. The teacher is the network from before
    the task.
    """

    Config = DistillingConfig
    config: DistillingConfig
    losses = ("ce",)

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        if self.cur_task_id > 0:
            self.old_net = copy_freeze(self.net)

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._validation_loss(step)
        if self.old_net is None:
            return loss
        old = slice(self.n_old_classes)
        old_output = self.forward_old_net(step.images)[0][:, old]
        temperature = self.config.distillation_temperature
        distilled = distillation_loss(step.output[:, old], old_output, temperature)
        weight = self.n_old_classes / self.n_seen_classes
        return (1 - weight) * loss + weight * self._mean(distilled, step.in_buffer)

    def _validation_loss(self, step: Step) -> torch.Tensor:
        return self._ce(step.output, step.targets, step.in_buffer)
