"""MTKD: distillation from two teachers, the network before the task and that of the first task."""

from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import nn

from iirc_train.buffer import HerdingBuffer
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.step import Step

Buffer = HerdingBuffer


class Model(BaseMethod):
    """Keeps all earlier classes with one teacher, and the superclasses with another; limits labels.

    Yu et al., "Multi-teacher knowledge distillation for incremental implicitly-refined
    classification" (arXiv:2202.11384, 2022). According to its abstract, the network before the task
    is the *general teacher*, which distils what was learned so far; the network after the first
    task is the *superclass teacher*, because it knows the superclasses best; and the *top-k
    prediction restriction* removes redundant predictions: of the labels predicted, at most the k
    with the highest scores remain.

    Only the abstract was available to this implementation, so the following are its own choices:

    - The losses are binary cross-entropies, as in iCaRL's form for this setup
      (:mod:`~iirc_train.methods.icarl_cnn`): of the labels for the classes of the task, of the
      general teacher's probabilities for all earlier classes, and of the superclass teacher's for
      the classes of the first task. Each is summed over its classes and divided by the number of
      all seen classes. Without the superclass teacher, this is iCaRL's loss.
    - The classes of the first task are those that the superclass teacher knows. In the published
      schedules, they are superclasses.
    - Both weights are 1, and k is 2, the levels of the published benchmarks. For a deeper
      taxonomy, set ``mtkd_top_k`` to its number of levels.
    - Memories are chosen by herding.

    Attributes:
        superclass_net: A frozen copy of the network from after the first task; None before that.
    """

    class Config(MethodConfig):
        """Settings of MTKD."""

        mtkd_general_weight: Annotated[
            float,
            Field(ge=0, le=MAX_FACTOR, description="Weight of the network before the task"),
        ] = 1.0
        mtkd_superclass_weight: Annotated[
            float,
            Field(ge=0, le=MAX_FACTOR, description="Weight of the network of the first task"),
        ] = 1.0
        mtkd_top_k: Annotated[
            int, Field(ge=1, le=10**6, description="Most labels to predict for an image")
        ] = 2

    config: Config
    capturable = True
    superclass_net: nn.Module | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_module("superclass_net", None)

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        if self.cur_task_id > 0:
            self.old_net = copy_freeze(self.net)
        if self.cur_task_id == 1:
            self.superclass_net = copy_freeze(self.net)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; both teachers always stay in evaluation mode."""
        super().train(mode)
        if self.superclass_net is not None:
            self.superclass_net.eval()
        return self

    def _loss(self, step: Step) -> torch.Tensor:
        n_old, n_seen = self.n_old_classes, self.n_seen_classes
        loss = self._part(step, step.targets, slice(n_old, n_seen))
        if self.old_net is None or self.superclass_net is None:
            return loss
        general = self._soft(self.forward_old_net(step.images)[0], step)
        with torch.no_grad():
            superclass = self._soft(self._run(self.superclass_net, step.images)[0], step)
        first = slice(self.n_cla_per_tsk[0])
        loss = loss + self.config.mtkd_general_weight * self._part(step, general, slice(n_old))
        return loss + self.config.mtkd_superclass_weight * self._part(step, superclass, first)

    def _soft(self, output: torch.Tensor, step: Step) -> torch.Tensor:
        """Return a teacher's probabilities as targets, (N, classes seen)."""
        soft = (output[:, : self.n_seen_classes] / self.config.temperature).sigmoid()
        return self._pseudo_labelled(soft, step.targets)

    def _part(self, step: Step, targets: torch.Tensor, classes: slice) -> torch.Tensor:
        """Return the mean over samples and all seen classes of the losses of some classes."""
        logits = step.output[:, classes]
        loss = self._bce(logits, targets[:, classes], step.in_buffer)
        return loss * (logits.shape[1] / self.n_seen_classes)

    def decide(self, scores: torch.Tensor) -> torch.Tensor:
        """Predict labels with probabilities above 1/2, but only those with the k highest scores."""
        k = min(self.config.mtkd_top_k, scores.shape[1])
        predictions = super().decide(scores)
        best = torch.zeros_like(predictions).scatter_(1, scores.topk(k, dim=1).indices, True)
        return predictions & best
