"""iCaRL-CNN: iCaRL that classifies by its output layer instead of the nearest class mean."""

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
    """Distils the outputs for earlier classes from the network of the previous task.

    Rebuffi et al., "iCaRL: Incremental classifier and representation learning" (CVPR 2017),
    algorithm 3. For classes of earlier tasks, targets are the sigmoid outputs of the old network;
    for classes of the current task, they are the labels.

    That is the loss ``bce``, the paper's. The loss ``ce`` is the form that later papers compare
    with: the cross-entropy over all seen classes, plus, with the same weight, the distillation of
    softmax outputs of Li and Hoiem, "Learning without forgetting" (ECCV 2016), section 3,
    equations 2 and 3; as in Castro et al., "End-to-end incremental learning" (ECCV 2018),
    section 3.2.
    """

    class Config(MethodConfig):
        """Settings of iCaRL."""

        distillation_temperature: Annotated[
            float,
            Field(gt=0, le=MAX_FACTOR, description="Temperature of the distillation, with loss ce"),
        ] = 2.0

    config: Config
    capturable = True
    losses = ("bce", "ce")

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        if self.cur_task_id > 0:
            self.old_net = copy_freeze(self.net)

    def _loss(self, step: Step) -> torch.Tensor:
        if self.old_net is None:
            return self._classification_loss(step.output, step.targets, step.in_buffer)
        old = slice(self.n_old_classes)
        old_output = self.forward_old_net(step.images)[0][:, old]
        if self.config.loss == "ce":
            temperature = self.config.distillation_temperature
            distilled = distillation_loss(step.output[:, old], old_output, temperature)
            loss = self._ce(step.output, step.targets, step.in_buffer)
            return loss + self._mean(distilled, step.in_buffer)
        soft = (old_output / self.config.temperature).sigmoid()
        targets = torch.cat((soft, step.targets[:, self.n_old_classes :]), dim=1)
        targets = self._pseudo_labelled(targets, step.targets)
        return self._bce(step.output, targets, step.in_buffer)
