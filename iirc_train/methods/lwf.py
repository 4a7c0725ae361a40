"""LwF: learning without forgetting, distillation on the samples of the new task."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from iirc_data.loader import Batch
from iirc_train.buffer import RandomBuffer
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import TaskSamples
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.losses import NEVER, distillation_loss, masked_for_new_classes
from iirc_train.methods.step import Step

Buffer = RandomBuffer

OUTPUT_LAYER = "model.output_layer."  # the names of its parameters start with this


class Model(BaseMethod):
    """Keeps the outputs of the earlier tasks' classes, for the samples of the new task.

    Li and Hoiem, "Learning without forgetting" (ECCV 2016; PAMI 2018), section 3: the cross-entropy
    over the classes of the new task, plus λ times the distillation loss of each earlier task's
    output layer (equations 2 and 3), with the network before the task as the teacher and T = 2. The
    paper knows the task of a test image; in class-incremental learning, the prediction is among all
    seen classes. Papers that compare with LwF there distil one softmax over all earlier classes
    (``lwf_distillation: joint``), and some have the cross-entropy over all seen classes
    (``lwf_classes: seen``).

    The paper first trains only the new output layer until it converges, and finds this of little
    use to LwF; ``lwf_warmup`` is the number of a task's epochs that do so. Then the other
    parameters and the statistics of batch normalisation stay as they are.

    The method has only the loss ``ce``, because its distillation is of softmax outputs; for several
    labels per sample, use ``lwf_mc``. A memory is learned with the cross-entropy over all seen
    classes.
    """

    class Config(MethodConfig):
        """Settings of LwF."""

        lwf_lambda: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight λ of the distillation")
        ] = 1.0
        lwf_temperature: Annotated[
            float, Field(gt=0, le=MAX_FACTOR, description="Temperature T of the distillation")
        ] = 2.0
        lwf_distillation: Annotated[
            Literal["per_task", "joint"],
            Field(
                description="Softmax of the distillation: one 'per_task', summed (the paper), or a "
                "'joint' one of all earlier classes (as PyCIL and Mammoth)"
            ),
        ] = "per_task"
        lwf_classes: Annotated[
            Literal["new", "seen"],
            Field(
                description="Classes of the cross-entropy: the 'new' ones for samples of new "
                "classes (the paper), or all 'seen' ones"
            ),
        ] = "new"
        lwf_warmup: Annotated[
            int,
            Field(
                ge=0,
                le=10**6,
                description="Epochs of each task after the first that train only the outputs of "
                "its new classes, with the cross-entropy over these",
            ),
        ] = 0

        @model_validator(mode="after")
        def _warmup_ends(self) -> Self:
            if self.lwf_warmup >= self.epochs_per_task:
                raise ValueError(
                    f"lwf_warmup {self.lwf_warmup} leaves no epoch of a task of "
                    f"{self.epochs_per_task}"
                )
            return self

    config: Config
    capturable = True
    losses = ("ce",)
    method_variables = ("epochs_done",)

    _heads: torch.Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("_heads", None, persistent=False)
        self.epochs_done = 0
        self._trainable = {n for n, p in self.net.named_parameters() if p.requires_grad}

    def _prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.epochs_done = 0
        if self.cur_task_id > 0:
            self.old_net = copy_freeze(self.net)
            self._heads = self._classes_of_earlier_tasks()
        self._freeze()

    def _classes_of_earlier_tasks(self) -> torch.Tensor:
        """Return the classes of each earlier task, int64 (classes, tasks), padded."""
        n_old, sizes = self.n_old_classes, self.n_cla_per_tsk[: self.cur_task_id]
        if self.config.lwf_distillation == "joint":
            sizes = [n_old]
        columns = torch.split(torch.arange(n_old), sizes)
        return torch.stack(
            [F.pad(column, (0, max(sizes) - len(column)), value=n_old) for column in columns], dim=1
        ).to(self.device)

    @property
    def step_variant(self) -> bool:
        """Whether only new outputs are trained."""
        return self._warms_up

    @property
    def _warms_up(self) -> bool:
        return self.cur_task_id > 0 and self.epochs_done < self.config.lwf_warmup

    def _freeze(self) -> None:
        """Freeze everything but the output layer while only new outputs are trained."""
        if self.config.lwf_warmup:
            for name, parameter in self.net.named_parameters():
                is_trained = not self._warms_up or name.startswith(OUTPUT_LAYER)
                parameter.requires_grad_(is_trained and name in self._trainable)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; while only new outputs are trained, the latter."""
        super().train(mode)
        if self._warms_up:
            self.net.eval()
        return self

    def resume_task(self, *, memory_batches: Iterator[Batch] | None = None) -> None:
        """See :meth:`BaseMethod.resume_task`."""
        self._freeze()

    def _consolidate_epoch_knowledge(
        self,
        val_metric: float | None = None,
        *,
        task_data: TaskSamples | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.epochs_done += 1
        self._freeze()

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._validation_loss(step)
        if self.old_net is None or self._warms_up:
            return loss
        temperature = self.config.lwf_temperature
        teacher = self.forward_old_net(step.images)[0]
        distilled = distillation_loss(
            self._by_task(step.output), self._by_task(teacher), temperature
        )
        return loss + self.config.lwf_lambda * self._mean(distilled.sum(dim=1), step.in_buffer)

    def _validation_loss(self, step: Step) -> torch.Tensor:
        output = step.output
        if self.config.lwf_classes == "new" or self._warms_up:
            output = masked_for_new_classes(output, step.targets, self.n_old_classes)
        return self._ce(output, step.targets, step.in_buffer)

    def _by_task(self, output: torch.Tensor) -> torch.Tensor:
        """Return the logits of the earlier tasks' classes, (N, classes of a task, tasks)."""
        assert self._heads is not None
        padded = F.pad(output[:, : self.n_old_classes], (0, 1), value=NEVER)
        return padded.index_select(1, self._heads.flatten()).view(-1, *self._heads.shape)

    @torch.no_grad()
    def _after_update(self) -> None:
        if self._warms_up and self.old_net is not None:
            old, now = (net.model.output_layer.parameters() for net in (self.old_net, self.net))  # type: ignore[union-attr]
            for before, after in zip(old, now, strict=True):
                after[: self.n_old_classes].copy_(before[: self.n_old_classes])
