"""The parts of a task: its main epochs, then the stages that the method adds."""

from typing import NamedTuple

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Loader
from iirc_data.task_view import TaskView
from iirc_train.buffer.choice import Choice
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.stages import Stage
from iirc_train.runtime.distributed import world_size
from iirc_train.runtime.progress import RunProgress
from iirc_train.training.components import Experiment


class Position(NamedTuple):
    """Position of a run.

    Attributes:
        task_id: The next task.
        epochs: Number of its epochs already trained.
        samples: Number of samples of the next epoch already trained, in the order of the epoch and
            over all processes. Unlike a number of batches, it does not depend on the processes.
    """

    task_id: int = 0
    epochs: int = 0
    samples: int = 0

    @property
    def is_within_task(self) -> bool:
        """Whether the task has started."""
        return self.epochs > 0 or self.samples > 0

    def plain(self) -> dict[str, int]:
        """Return the position by name; ``samples`` only within an epoch, as earlier releases."""
        return {name: n for name, n in self._asdict().items() if n or name != "samples"}


class TaskPart(NamedTuple):
    """Some epochs of a task that show the same data, with one optimizer.

    Attributes:
        stage: The stage; None for the main epochs.
        first: First epoch of the part, counted from the start of the task.
        stop: The epoch after its last one.
    """

    stage: Stage | None
    first: int
    stop: int

    @property
    def takes_memories(self) -> bool:
        """Whether the buffer takes the memories of the task before the part."""
        return self.stage is not None and self.stage.after_memories

    def has_started(self, position: Position) -> bool:
        """Return whether the part has started at a position within its task."""
        return position[1:] > (self.first, 0)

    def is_over(self, position: Position) -> bool:
        """Return whether a later part has started at a position within its task."""
        return position[1:] > (self.stop, 0)

    def show(
        self,
        progress: RunProgress,
        class_names: list[str],
        position: Position,
        n_batches: int,
        batch_size: int,
    ) -> None:
        """Show that the part starts or resumes.

        Args:
            progress: Where to show it.
            class_names: The classes that the task introduces.
            position: Where the run stands.
            n_batches: Batches per epoch.
            batch_size: Samples per batch, over all processes.
        """
        done = 0
        if self.has_started(position):
            done = (position.epochs - self.first) * n_batches + position.samples // batch_size
        progress.begin_task(
            position.task_id,
            class_names,
            n_epochs=self.stop - self.first,
            n_batches=n_batches,
            batches_done=done,
            stage=None if self.stage is None else self.stage.name,
        )


def parts_of_task(method: BaseMethod, task_id: int) -> list[TaskPart]:
    """Return the parts of a task, in order."""
    stop = len(method.config.epochs_of_task(task_id))
    parts = [TaskPart(None, 0, stop)]
    for stage in method.stages_of_task(task_id):
        parts.append(TaskPart(stage, stop, stop + stage.epochs))
        stop += stage.epochs
    return parts


class PartLoaders:
    """The training loaders of a task's parts; parts that show the same share one.

    Args:
        experiment: Data, method and buffer.
        view: The task's view.
    """

    def __init__(self, experiment: Experiment, view: TaskView) -> None:
        self._experiment = experiment
        self._view = view
        self._of_everything: Loader | None = None

    def loader(self, part: TaskPart, choice: Choice | None) -> Loader:
        """Return the loader of a part.

        Args:
            part: The part.
            choice: What it shows; None for everything.

        Raises:
            ConfigurationError: A stage shows fewer samples than there are processes.
        """
        if choice is None:
            if self._of_everything is None:
                self._of_everything = self._experiment.training_loader(self._view)
            return self._of_everything
        self._of_everything = None  # frees its images
        n = len(choice.samples) + len(choice.memories)
        if n < world_size():
            name = "the main epochs" if part.stage is None else f"stage {part.stage.name}"
            raise ConfigurationError(
                f"{name} of the method show {n} samples to {world_size()} process(es): keep more "
                "memories"
            )
        once = None if part.stage is None else 1.0
        return self._experiment.training_loader(self._view, choice=choice, replay_multiplier=once)
