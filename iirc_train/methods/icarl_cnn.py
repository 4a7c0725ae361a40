"""iCaRL-CNN: iCaRL that classifies by its output layer instead of the nearest class mean."""

from typing import Any

import torch

from iirc_train.buffer import HerdingBuffer
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.step import Step

Buffer = HerdingBuffer


class Model(BaseMethod):
    """Distils the outputs for earlier classes from the network of the previous task.

    Rebuffi et al., "iCaRL: Incremental classifier and representation learning" (CVPR 2017),
    algorithm 3. For classes of earlier tasks, targets are the sigmoid outputs of the old network;
    for classes of the current task, they are the labels.
    """

    capturable = True

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        if self.cur_task_id > 0:
            self.old_net = copy_freeze(self.net)

    def _loss(self, step: Step) -> torch.Tensor:
        targets = step.targets
        if self.old_net is not None:
            n_old = self.n_old_classes
            old_output, _ = self.forward_old_net(step.images)
            soft = (old_output[:, :n_old] / self.config.temperature).sigmoid()
            targets = torch.cat((soft, targets[:, n_old:]), dim=1)
        return self._bce(step.output, targets, step.in_buffer)
