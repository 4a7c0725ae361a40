"""WA: weights of new classes that are as long as those of earlier classes."""

from typing import Annotated, Any

import torch
from pydantic import Field

from iirc_train.buffer import HerdingBuffer
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.losses import distillation_loss
from iirc_train.methods.step import Step

Buffer = HerdingBuffer


class Model(BaseMethod):
    """Distils the outputs for earlier classes, and aligns the output layer at the end of a task.

    Zhao et al., "Maintaining discrimination and fairness in class incremental learning" (CVPR
    2020). The loss is (1 - λ) times the cross-entropy plus λ times the distillation, where λ is
    the fraction of earlier classes among those seen (section 3.2). At the end of a task, the
    weights of its classes are scaled so that their mean norm is that of earlier classes
    (section 3.3, equations 8 to 10); biases stay as they are. The teacher is the network after
    that.

    The method has only the loss ``ce``. With a threshold per label, as in IIRC, a prediction
    depends on the sign of a logit, which scaling its weights changes only through the bias.
    """

    class Config(MethodConfig):
        """Settings of WA."""

        distillation_temperature: Annotated[
            float, Field(gt=0, le=MAX_FACTOR, description="Temperature of the distillation")
        ] = 2.0
        nonnegative_weights: Annotated[
            bool,
            Field(
                description="Clip the weights of the output layer at 0 after each step, the "
                "paper's restriction of section 3.4"
            ),
        ] = False

    config: Config
    capturable = True
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

    @torch.no_grad()
    def _after_update(self) -> None:
        if self.config.nonnegative_weights:
            self._head_weight.clamp_(min=0)

    @torch.no_grad()
    def consolidate_task_knowledge(self, *args: Any, **kwargs: Any) -> None:
        """End a task: align the weights of its classes with those of earlier classes."""
        n_old, n_seen = self.n_old_classes, self.n_seen_classes
        if n_old and n_seen > n_old:
            norms = self._head_weight[:n_seen].norm(dim=1)
            self._head_weight[n_old:n_seen] *= norms[:n_old].mean() / norms[n_old:].mean()

    @property
    def _head_weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.net.model.output_layer.weight  # type: ignore[assignment,union-attr]
        return weight
