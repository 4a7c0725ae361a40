"""DER (dynamically expandable representation): a new feature extractor for every task."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from iirc_train.buffer import HerdingBuffer
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.stages import Stage
from iirc_train.methods.step import Step
from iirc_train.models.branches import BranchedNetwork, align_new_weights

Buffer = HerdingBuffer


class Model(BaseMethod):
    """Adds a feature extractor per task, freezes the others, then retrains the classifier.

    Yan, Xie and He, "DER: Dynamically expandable representation for class incremental learning"
    (CVPR 2021), without the masks that prune channels (section 3.3), as in the rows "DER w/o P" of
    the paper's tables. From the second task on:

    - The new extractor starts as a copy of the last one; earlier ones are frozen, and so are the
      statistics of their batch normalisation (section 3.2).
    - The loss is that of the classifier over all latents, plus λ times that of an auxiliary
      classifier over the new latent alone. To the latter, all earlier classes are one class
      (section 3.2).
    - A stage re-initialises the classifier and trains it on a class-balanced set, with a
      temperature (section 3.4).

    The paper has cross-entropy. The loss ``bce`` has binary forms of all three losses for IIRC:
    the auxiliary target of the earlier classes is 1 if the sample shows a label of any of them.
    """

    class Config(MethodConfig):
        """Settings of DER."""

        auxiliary_weight: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight of the auxiliary loss, λ")
        ] = 1.0
        classifier: Annotated[
            Literal["balanced", "reference"],
            Role.STATE,
            Field(
                description="'balanced' retrains the classifier on a class-balanced set; "
                "'reference' aligns the weights of its new classes instead, as PyCIL does"
            ),
        ] = "balanced"
        classifier_epochs: Annotated[
            int,
            Role.STATE,
            Field(ge=1, le=10**6, description="Epochs that retrain the classifier"),
        ] = 30
        classifier_lr: Annotated[
            float,
            Field(
                gt=0,
                le=MAX_FACTOR,
                description="Learning rate of the classifier's epochs; a tenth of it after half of "
                "them",
            ),
        ] = 0.1
        classifier_temperature: Annotated[
            float,
            Field(gt=0, le=MAX_FACTOR, description="Temperature when the classifier is retrained"),
        ] = 5.0

    config: Config
    net: BranchedNetwork
    capturable = True
    trains_trunk = "trains a copy of the trunk for each task"
    losses = ("bce", "ce")

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        return BranchedNetwork(net, self.n_cla_per_tsk[0])

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        if self.cur_task_id > 0:
            self.net.grow(self.n_seen_classes)
            n_new = self.n_cla_per_tsk[self.cur_task_id]
            self.net.auxiliary_head = self.net.new_head(1 + n_new)

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._validation_loss(step)
        if self.cur_task_id == 0:
            return loss
        n_old = self.n_old_classes
        is_old = step.targets[:, :n_old].amax(dim=1, keepdim=True)
        targets = torch.cat((is_old, step.targets[:, n_old:]), dim=1)
        logits = self.net.auxiliary_head(self.net.of_new_branch(step.latent))
        auxiliary = self._classification_loss(logits, targets, step.in_buffer)
        return loss + self.config.auxiliary_weight * auxiliary

    def _validation_loss(self, step: Step) -> torch.Tensor:
        return self._classification_loss(step.output, step.targets, step.in_buffer)

    # ------------------------------------------------------------------ the classifier

    def stages_of_task(self, task_id: int) -> Sequence[Stage]:
        """Retrain the classifier, from the second task on."""
        config = self.config
        if task_id == 0 or config.classifier == "reference":
            return ()
        epochs = config.classifier_epochs
        schedule = [epochs // 2] if epochs > 1 else None
        settings = {"lr": config.classifier_lr, "lr_schedule": schedule, "lr_gamma": 0.1}
        return (Stage("classifier", epochs, "balanced", settings=settings, in_training_mode=False),)

    def _prepare_stage(self, stage: Stage, *args: Any, **kwargs: Any) -> None:
        self.net.head.reset_parameters()

    def _parameters_of_stage(self, stage: Stage) -> Iterable[nn.Parameter]:
        return self.net.head.parameters()

    def _stage_loss(self, stage: Stage, step: Step) -> torch.Tensor:
        alike = torch.zeros_like(step.in_buffer)  # memory_strength would unbalance the classes
        temperature = self.config.classifier_temperature
        return self._classification_loss(step.output, step.targets, alike, temperature)

    def consolidate_task_knowledge(self, *args: Any, **kwargs: Any) -> None:
        """End a task: align the weights of its classes if the reference does."""
        if self.cur_task_id > 0 and self.config.classifier == "reference":
            align_new_weights(self.net.head.weight, self.n_old_classes)
