"""Stages: epochs of further training that a method adds to a task after its main epochs."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.buffer.base import BufferBase
from iirc_train.buffer.choice import Choice, balanced, everything
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories, TaskSamples
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods.forward_passes import Networks

OF_THE_MAIN_EPOCHS: dict[str, Any] = {
    "lr_schedule": None,
    "lr_cosine": False,
    "lr_warmup": 0,
    "reduce_lr_on_plateau": False,
}
"""Settings of the schedule of the main epochs, as they are in a stage that does not set them."""

SETTINGS = frozenset(
    {"optimizer", "momentum", "nesterov", "lr", "lr_gamma", "weight_decay", *OF_THE_MAIN_EPOCHS}
)
"""Names of the settings that a stage may replace."""


@dataclass(frozen=True)
class Stage:
    """Epochs of further training after the main epochs of a task.

    Attributes:
        name: Name in ``metrics.jsonl`` and on the progress bar, such as ``"compression"``.
        epochs: Number of epochs, at least 1.
        data: What the epochs show. ``"task"``: the samples of the task and the memories of earlier
            classes, as in the main epochs. ``"balanced"``: the same number of each class; see
            :func:`~iirc_train.buffer.choice.balanced`. ``"own"``: what
            :meth:`Staged.choose_samples` of the method returns.
        after_memories: Whether the buffer has taken the memories of the task before.
        settings: Values for settings of optimizer and schedule (:data:`SETTINGS`). Optimizer,
            learning rate and weight decay are those of the run by default; the learning rate is
            constant.
        in_training_mode: Whether the network is in training mode. Otherwise, batch normalisation
            uses its statistics and keeps them, and dropout is off.
    """

    name: str
    epochs: int
    data: Literal["task", "balanced", "own"] = "task"
    after_memories: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    in_training_mode: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigurationError: A value is wrong.
        """
        if self.epochs < 1:
            raise ConfigurationError(
                f"stage {self.name} has {self.epochs} epochs: leave out a stage without epochs"
            )
        if unknown := sorted(set(self.settings) - SETTINGS):
            raise ConfigurationError(
                f"stage {self.name} sets {unknown[0]!r}: choose among {', '.join(sorted(SETTINGS))}"
            )

    @property
    def is_choice(self) -> bool:
        """Whether the epochs show a choice among the task's samples and the memories."""
        return self.data != "task" or self.after_memories

    def applied_to(self, config: MethodConfig) -> MethodConfig:
        """Return settings in which those of optimizer and schedule are the stage's."""
        return config.model_copy(update={**OF_THE_MAIN_EPOCHS, **self.settings})


class Staged(Networks):
    """The stages of a method.

    After the main epochs of a task::

        for stage in method.stages_of_task(method.cur_task_id):
            method.prepare_stage(task_data, buffer=memories)
            for each epoch of the stage:
                for each batch:
                    predictions, loss = method.training_step(batch)
                method.consolidate_epoch_knowledge(val_metric)
            method.finish_stage()

    Attributes:
        stage: The current stage; None during the main epochs, and after the last stage.
        stages_run: For each task so far, how many of its stages were prepared and how many were
            finished.
    """

    stage: Stage | None = None
    config: MethodConfig
    cur_task_id: int
    stages_run: list[list[int]]
    _frozen_in_stage: Sequence[nn.Parameter] = ()

    def stages_of_task(self, task_id: int) -> Sequence[Stage]:
        """Return the stages of a task, in order; by default none.

        They depend on nothing but settings and the number of the task, because epochs are numbered
        across tasks, and a resumed run asks for the stages of earlier tasks.
        """
        return ()

    def first_epoch_of_task(self, task_id: int) -> int:
        """Return the number of a task's first epoch, counted across tasks, with their stages."""
        stages = (stage for task in range(task_id) for stage in self.stages_of_task(task))
        return self.config.epochs_of_task(task_id).start + sum(stage.epochs for stage in stages)

    def prepare_stage(
        self,
        task_data: TaskSamples | None = None,
        *,
        buffer: Memories | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Start the next stage of the task, with a new optimizer and scheduler.

        Parameters of the network that the stage does not train need no gradient until it is
        finished.

        Args:
            task_data: The task's data. None when a state is loaded: values do not matter then.
            buffer: The memories; None likewise.
            batch_size: Samples per batch when the method computes something from them.
        """
        self.train_through(None)
        stages, run = self.stages_of_task(self.cur_task_id), self.stages_run[-1]
        stage = stages[run[0]]
        run[0] += 1
        self._prepare_stage(stage, task_data, buffer=buffer, batch_size=batch_size)
        self.stage = stage
        trained = list(self._parameters_of_stage(stage))
        ids = {id(parameter) for parameter in trained}
        self._frozen_in_stage = [
            p for p in self.net.parameters() if p.requires_grad and id(p) not in ids
        ]
        for parameter in self._frozen_in_stage:
            parameter.requires_grad_(False)
        self.reset_optimizer_and_scheduler(trained)

    def finish_stage(self) -> None:
        """End the current stage; the network may change, for example be replaced."""
        assert self.stage is not None
        self.train_through(None)
        stage, self.stage = self.stage, None
        for parameter in self._frozen_in_stage:
            parameter.requires_grad_(True)
        self._frozen_in_stage = ()
        self._finish_stage(stage)
        self.stages_run[-1][1] += 1

    def repeat_stages(self, prepared: int, finished: int) -> None:
        """Prepare and finish stages of the current task without data, to load a state."""
        for number in range(prepared):
            self.prepare_stage()
            if number < finished:
                self.finish_stage()

    def choose_samples(
        self,
        stage: Stage | None,
        task_data: TaskSamples,
        buffer: BufferBase,
        batch_size: int = BATCH_SIZE,
    ) -> Choice | None:
        """Choose what the main epochs or a stage show; called before :meth:`prepare_stage`.

        All processes call this. Checkpoints save the choice.

        Args:
            stage: The stage; None for the main epochs.
            task_data: The task's data.
            buffer: The memories.
            batch_size: Samples per batch when latents are computed.

        Returns:
            The choice. None for the samples of the task and the memories of earlier classes, shown
            as often as the setting ``buffer_sampling_multiplier`` says.
        """
        if stage is None:
            return None
        if stage.data == "balanced":
            return balanced(task_data, buffer, self, batch_size, has_taken=stage.after_memories)
        return everything(task_data, buffer) if stage.after_memories else None

    def _prepare_stage(
        self,
        stage: Stage,
        task_data: TaskSamples | None = None,
        *,
        buffer: Memories | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Prepare what the method needs for a stage, such as a teacher or a new output layer."""

    def _finish_stage(self, stage: Stage) -> None:
        """Do what the method needs after a stage, such as replacing the network."""

    def _parameters_of_stage(self, stage: Stage) -> Iterable[nn.Parameter]:
        """Return the parameters of the network that a stage trains; by default all of them."""
        return self.net.parameters()

    @abstractmethod
    def reset_optimizer_and_scheduler(
        self, optimizable_parameters: Iterable[nn.Parameter] | None = None
    ) -> None:
        """Create a new optimizer and scheduler."""

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; see :attr:`Stage.in_training_mode`."""
        super().train(mode)
        if self.stage is not None and not self.stage.in_training_mode:
            self.net.eval()
        return self
