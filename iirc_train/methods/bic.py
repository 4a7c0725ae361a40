"""BiC: a correction of the bias towards new classes, fitted on samples that were held out."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.buffer import BufferBase, HerdingBuffer
from iirc_train.buffer.choice import Choice
from iirc_train.buffer.held_out import hold_out
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import TaskSamples
from iirc_train.config.experiment import MAX_FACTOR
from iirc_train.methods.distilling import DistillingConfig, DistillingMethod
from iirc_train.methods.stages import Stage
from iirc_train.methods.step import Step
from iirc_train.models.bias_correction import BiasCorrectedLinear


class Buffer(HerdingBuffer):
    """Keeps the samples that herding chooses."""

    needs_memories = (
        "bic fits its correction on a part of the memories: set n_memories_per_class or "
        "total_n_mems, to at least two memories per class (or use wa)"
    )


class Model(DistillingMethod):
    """Learns with distillation, then fits a linear correction of the new classes' logits.

    Wu et al., "Large scale incremental learning" (CVPR 2019). The loss of the main epochs is
    equations 1 to 3, with λ = n / (n + m) for n earlier and m new classes. Then all other
    parameters are frozen, and the correction alpha o + beta of the new classes' logits o
    (equation 4) is fitted with the cross-entropy (equation 5) on a validation part: a fraction of
    each class's memories, and as many samples of each new class, which the main epochs do not show
    (:func:`~iirc_train.buffer.held_out.hold_out`). Predictions, the teacher and later tasks use
    the corrected logits.

    The paper leaves open how many epochs the correction is fitted for, and how. Here, it is
    optimized as the network is, for as many epochs, by default without weight decay, which would
    pull alpha towards 0. With ``bic_form: reference``, batch normalisation is in training mode
    meanwhile, and the cross-entropy is that of the probabilities in place of the logits, as in
    PyCIL.

    The method has only the loss ``ce``: the bias that it corrects is that of a softmax, in which
    all classes compete. In IIRC, each label is decided by itself.
    """

    class Config(DistillingConfig):
        """Settings of BiC."""

        validation_fraction: Annotated[
            float,
            Field(gt=0, lt=1, description="Fraction of a class's memories held out for validation"),
        ] = 0.1
        correction_epochs: Annotated[
            Annotated[int, Field(ge=1, le=10**6)] | None,
            Field(description="Epochs that fit the correction; by default epochs_per_task"),
        ] = None
        correction_lr: Annotated[
            Annotated[float, Field(gt=0, le=MAX_FACTOR)] | None,
            Field(description="Learning rate of the correction; by default lr"),
        ] = None
        correction_weight_decay: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight decay of the correction")
        ] = 0.0
        bic_form: Annotated[
            Literal["paper", "reference"],
            Field(description="How the correction is fitted: as in the paper, or as in PyCIL"),
        ] = "paper"

    config: Config
    capturable = True

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        layer = net.model.output_layer  # type: ignore[union-attr]
        net.model.output_layer = BiasCorrectedLinear(layer, self.n_cla_per_tsk)  # type: ignore[union-attr,arg-type]
        return net

    @property
    def _layer(self) -> BiasCorrectedLinear:
        layer = self.net.model.output_layer  # type: ignore[union-attr]
        assert isinstance(layer, BiasCorrectedLinear)
        return layer

    def stages_of_task(self, task_id: int) -> Sequence[Stage]:
        """Return the stage that fits the correction; the first task has none."""
        if task_id == 0:
            return ()
        config = self.config
        schedule = ("lr_schedule", "lr_cosine", "lr_warmup", "lr_gamma")
        return (
            Stage(
                "bias_correction",
                config.correction_epochs or config.epochs_per_task,
                data="own",
                settings={
                    **{name: getattr(config, name) for name in schedule},
                    "lr": config.correction_lr or config.lr,
                    "weight_decay": config.correction_weight_decay,
                },
                in_training_mode=config.bic_form == "reference",
            ),
        )

    def choose_samples(
        self,
        stage: Stage | None,
        task_data: TaskSamples,
        buffer: BufferBase,
        batch_size: int = BATCH_SIZE,
    ) -> Choice | None:
        """Choose the part for training, or for the stage the part for validation.

        Raises:
            ConfigurationError: No memories can be held out, or none could in a later task.
        """
        if task_data.cur_task_id == 0:
            self._check_places(buffer)
            return None
        shown, held = hold_out(task_data, buffer, self.config.validation_fraction)
        if not len(held.memories):
            raise ConfigurationError(
                f"bic needs two memories of an earlier class in task {task_data.cur_task_id}, got "
                f"{len(buffer)} memories in all: keep more"
            )
        return shown if stage is None else held

    def _check_places(self, buffer: BufferBase) -> None:
        """Refuse a buffer that leaves the classes before the last task a memory each."""
        *earlier, _ = self.n_cla_per_tsk
        if earlier and buffer.places_per_class(sum(earlier)) < 2:
            raise ConfigurationError(
                f"bic needs two memories per class, but the buffer keeps one of each of the "
                f"{sum(earlier)} classes before the last task: set n_memories_per_class to 2 or "
                f"more, or total_n_mems above {sum(earlier)}"
            )

    def _prepare_stage(self, stage: Stage, *args: Any, **kwargs: Any) -> None:
        self._layer.begin(self.cur_task_id)

    def _finish_stage(self, stage: Stage) -> None:
        self._layer.fix()

    def _parameters_of_stage(self, stage: Stage) -> Iterable[nn.Parameter]:
        return self._layer.alpha, self._layer.beta

    def _stage_loss(self, stage: Stage, step: Step) -> torch.Tensor:
        is_paper = self.config.bic_form == "paper"
        logits = step.output if is_paper else step.output.softmax(dim=1)
        return self._ce(logits, step.targets, step.in_buffer)
