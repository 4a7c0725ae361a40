"""FOSTER: a second feature extractor fits what the network lacks, then both become one again."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import nn

from iirc_train.buffer import HerdingBuffer
from iirc_train.buffer.samples import Memories, TaskSamples
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.losses import distillation_loss
from iirc_train.methods.stages import Stage
from iirc_train.methods.step import Step
from iirc_train.models.branches import BranchedNetwork, align_new_weights, freeze

Buffer = HerdingBuffer


class Model(BaseMethod):
    """Feature boosting, then feature compression.

    Wang, Zhou, Ye and Zhan, "FOSTER: Feature boosting and compression for class-incremental
    learning" (ECCV 2022). From the second task on:

    - *Boosting* (section 3.2): the extractor is frozen, and a second one, which starts as its copy,
      learns beside it. The loss is the sum of three: the cross-entropy of aligned logits, which are
      scaled by the effective number of samples of their class (logits alignment); the
      cross-entropy of a second head over the new latent alone (feature enhancement); and the
      distillation of the outputs for earlier classes from the network of the previous task.
    - *Compression* (section 3.3), a stage: a network with a single extractor learns the outputs of
      both by balanced distillation, in which the softmax outputs of classes with few samples weigh
      more. It starts as the network of the previous task. It replaces both.

    The number of samples of a class is that of its samples in the task, or of its memories. The
    paper leaves open whether the output layer's weights of earlier classes are trained; they are.

    The method has only the loss ``ce``: alignment, distillation and its balance all act on
    distributions over the classes, and a threshold per label would undo the alignment.
    """

    class Config(MethodConfig):
        """Settings of FOSTER."""

        alignment_beta: Annotated[
            float, Field(ge=0, lt=1, description="β of the effective number, in logits alignment")
        ] = 0.96
        alignment: Annotated[
            Literal["paper", "reference"],
            Field(
                description="Scale of aligned logits: 'paper', factors of an earlier and a new "
                "class add up to 1; 'reference', the inverse factors of all classes have mean 1, "
                "as in PyCIL"
            ),
        ] = "paper"
        new_class_weights: Annotated[
            Literal["zero", "reference"],
            Field(
                description="Weights of new classes for earlier latents: 'zero' as in the paper, "
                "or 'reference', trained as in PyCIL's configuration"
            ),
        ] = "zero"
        distillation_weight: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight of the distillation")
        ] = 1.0
        distillation_temperature: Annotated[
            float, Field(gt=0, le=MAX_FACTOR, description="Temperature of both distillations")
        ] = 2.0
        compression_epochs: Annotated[
            int,
            Role.STATE,
            Field(ge=0, le=10**6, description="Epochs of the compression; 0 keeps all extractors"),
        ] = 130
        compression_beta: Annotated[
            float, Field(ge=0, lt=1, description="β of the effective number, in the compression")
        ] = 0.97
        compression_weight_decay: Annotated[
            Annotated[float, Field(ge=0, le=MAX_FACTOR)] | None,
            Field(
                description="Weight decay of the compression; by default that of the run, and 0 in "
                "PyCIL"
            ),
        ] = None
        evaluated: Annotated[
            Literal["compressed", "reference"],
            Role.STATE,
            Field(
                description="Network that predicts and chooses memories after a task: "
                "'compressed', or 'reference', that before the compression, as in PyCIL"
            ),
        ] = "compressed"
        weight_alignment: Annotated[
            bool,
            Field(
                description="Scale the weights of new classes to the mean norm of earlier ones, "
                "after boosting and after compression"
            ),
        ] = False

    config: Config
    net: BranchedNetwork
    capturable = True
    trains_trunk = "trains a second trunk for each task"
    losses = ("ce",)
    _scales: torch.Tensor
    _log_balance: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("_scales", None)
        self.register_buffer("_log_balance", None)

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        return BranchedNetwork(net, self.n_cla_per_tsk[0])

    # ------------------------------------------------------------------ boosting

    def _prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        *,
        buffer: Memories | None = None,
        **_: Any,
    ) -> None:
        """Start a task: add an extractor, and measure how unbalanced the classes are.

        Args:
            task_data: The task's data.
            dist_args: Accepted for code written for the published package.
            buffer: The memories of earlier tasks. Without them, all classes count alike.
        """
        if self.cur_task_id == 0:
            return
        if self.old_net is not None:
            self.net, self.old_net = cast(BranchedNetwork, self.old_net), None
        net, n_old = self.net, self.n_old_classes
        net.old_head = cast(nn.Linear, copy_freeze(net.head))
        net.grow(self.n_seen_classes)
        net.auxiliary_head = net.new_head(self.n_seen_classes)
        if self.config.new_class_weights == "zero":
            with torch.no_grad():
                net.of_old_branches(net.head.weight)[n_old:] = 0.0
        counts = torch.ones(self.n_seen_classes)
        if task_data is not None and buffer is not None:
            counts = self._samples_per_class(task_data, buffer)
        self._scales = self._alignment(counts).to(self.device)
        self._log_balance = -_effective(counts, self.config.compression_beta).log().to(self.device)

    def _samples_per_class(self, task_data: TaskSamples, buffer: Memories) -> torch.Tensor:
        """Return the mean number of memories of earlier classes, and of samples of new ones."""
        new = list(task_data.cur_task)
        n_new = sum(len(task_data.get_image_indices_by_cla(name)) for name in new) / len(new)
        n_old = sum(n for name, n in buffer.n_memories_per_class.items() if name not in new)
        counts = torch.full((self.n_seen_classes,), float(n_new))
        counts[: self.n_old_classes] = n_old / self.n_old_classes
        return counts.clamp(min=1)

    def _alignment(self, counts: torch.Tensor) -> torch.Tensor:
        effective = _effective(counts, self.config.alignment_beta)
        if self.config.alignment == "reference":
            return effective * (1 / effective).mean()
        return effective / (effective[0] + effective[-1])

    def _loss(self, step: Step) -> torch.Tensor:
        if self.cur_task_id == 0:
            return self._validation_loss(step)
        net, in_buffer = self.net, step.in_buffer
        loss = self._ce(step.output * self._scales, step.targets, in_buffer)
        enhancement = net.auxiliary_head(net.of_new_branch(step.latent))
        loss = loss + self._ce(enhancement, step.targets, in_buffer)
        old_output = net.old_head(net.of_old_branches(step.latent))
        output = step.output[:, : self.n_old_classes]
        distilled = distillation_loss(output, old_output, self.config.distillation_temperature)
        return loss + self.config.distillation_weight * self._mean(distilled, in_buffer)

    def _validation_loss(self, step: Step) -> torch.Tensor:
        return self._ce(step.output, step.targets, step.in_buffer)

    def _correct_gradient(self) -> None:
        is_boosting = self.cur_task_id > 0 and self.stage is None
        gradient = self.net.head.weight.grad
        if is_boosting and self.config.new_class_weights == "zero" and gradient is not None:
            self.net.of_old_branches(gradient)[self.n_old_classes :] = 0.0

    # ------------------------------------------------------------------ compression

    def stages_of_task(self, task_id: int) -> Sequence[Stage]:
        """Compress the network, from the second task on."""
        epochs = self.config.compression_epochs
        if task_id == 0 or epochs == 0:
            return ()
        settings: dict[str, Any] = {"lr_cosine": True}
        if self.config.compression_weight_decay is not None:
            settings["weight_decay"] = self.config.compression_weight_decay
        return (Stage("compression", epochs, settings=settings),)

    def _prepare_stage(self, stage: Stage, *args: Any, **kwargs: Any) -> None:
        self._align_weights()
        boosted = self.net
        head = boosted.new_head(self.n_seen_classes, head=boosted.old_head)
        self.net = boosted.single(0, head)
        freeze(boosted)
        self.old_net = boosted

    def _stage_loss(self, stage: Stage, step: Step) -> torch.Tensor:
        temperature = self.config.distillation_temperature
        output, _ = self.forward_old_net(step.images)
        # the softmax of these is that of the outputs, multiplied by the balance and normalised
        balanced = output + temperature * self._log_balance
        distilled = distillation_loss(step.output, balanced, temperature)
        return self._mean(distilled, step.in_buffer)

    def _finish_stage(self, stage: Stage) -> None:
        self._align_weights()
        if self.config.evaluated == "compressed":
            self.old_net = None
        else:  # until the next task
            self.net, self.old_net = cast(BranchedNetwork, self.old_net), self.net

    def consolidate_task_knowledge(self, *args: Any, **kwargs: Any) -> None:
        """End a task: align the weights of a network that is not compressed, if configured."""
        if not self.config.compression_epochs:
            self._align_weights()

    def _align_weights(self) -> None:
        if self.config.weight_alignment and self.cur_task_id > 0:
            align_new_weights(self.net.head.weight, self.n_old_classes)


def _effective(counts: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the effective number of samples, (1 - βⁿ) / (1 - β).

    Cui et al., "Class-balanced loss based on effective number of samples" (CVPR 2019), equation 2.
    """
    return (1 - beta**counts) / (1 - beta)
