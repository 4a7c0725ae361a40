"""Following a run from outside: TensorBoard, Weights & Biases."""

import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch.utils.tensorboard import SummaryWriter

from iirc_data.errors import ConfigurationError
from iirc_data.files import write_atomically
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.metrics import shown_labels
from iirc_train.runtime.distributed import rank

TENSORBOARD_NAME = "tensorboard"
WANDB_NAME = "wandb_id.txt"


class Tracking(NamedTuple):
    """Who follows a run; no part of its configuration, so it may change when the run goes on.

    Attributes:
        tensorboard: Write TensorBoard's event files into the run's folder.
        wandb_project: Project of Weights & Biases to log to; None for none.
    """

    tensorboard: bool = True
    wandb_project: str | None = None

    def check_installed(self) -> None:
        """Check that what was asked for is installed.

        Raises:
            ConfigurationError: It is not.
        """
        if self.wandb_project is not None:
            _import_wandb()


TENSORBOARD_ONLY = Tracking()


class Tracker(Protocol):
    """Something that is told a run's numbers."""

    def epoch_done(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Take an epoch's numbers.

        Args:
            epoch: Number of the epoch, counted over all tasks.
            scalars: Names and values.
        """

    def task_done(self, task_id: int, scalars: Mapping[str, float]) -> None:
        """Take what a model scores after a task."""


class TensorBoard:
    """Event files for TensorBoard: curves over epochs, and over tasks.

    When they cannot be written any more, a warning says so and training goes on without them.

    Args:
        folder: Where they go.
        epoch: The epoch that comes next: what a killed run wrote of it and later ones is void.
        task_id: The task that is to be evaluated next, likewise.
    """

    def __init__(self, folder: Path, epoch: int, task_id: int) -> None:
        self._epochs = SummaryWriter(folder / "epochs", purge_step=epoch)
        self._tasks = SummaryWriter(folder / "tasks", purge_step=task_id)
        self._has_failed = False

    def epoch_done(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._add(self._epochs, scalars, epoch)

    def task_done(self, task_id: int, scalars: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._add(self._tasks, scalars, task_id)

    def close(self) -> None:
        """Write what is left."""
        for writer in (self._epochs, self._tasks):
            with self._failing_once():
                writer.close()

    def _add(self, writer: SummaryWriter, scalars: Mapping[str, float], step: int) -> None:
        if self._has_failed:
            return
        with self._failing_once():
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()

    @contextmanager
    def _failing_once(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the writer's thread has met
            if not self._has_failed:
                warnings.warn(f"TensorBoard's curves end here: {error}", stacklevel=2)
            self._has_failed = True


class WeightsAndBiases:
    """A run on Weights & Biases, the same one when training goes on.

    Args:
        run: The run's folder.
        project: Name of the project.
        config: The run's configuration.

    Raises:
        ConfigurationError: The package ``wandb`` is not installed, or its service refuses.
    """

    def __init__(self, run: Path, project: str, config: ExperimentConfig) -> None:
        wandb = _import_wandb()
        path = run / WANDB_NAME
        if not path.exists():
            with write_atomically(path) as file:
                file.write(uuid.uuid4().hex.encode())
        try:
            self._run = wandb.init(
                project=project,
                name=run.name,
                id=path.read_text(),
                resume="allow",
                dir=str(run),
                config=config.values(),
            )
        except wandb.Error as error:
            raise ConfigurationError(
                f"Weights & Biases: {error} To go on without the service, set WANDB_MODE=offline: "
                "'wandb sync' sends it later"
            ) from error
        self._run.define_metric("epoch/*", step_metric="epoch")
        self._run.define_metric("task/*", step_metric="task")

    def epoch_done(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._run.log({"epoch": epoch, **{f"epoch/{k}": v for k, v in scalars.items()}})

    def task_done(self, task_id: int, scalars: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._run.log({"task": task_id, **{f"task/{k}": v for k, v in scalars.items()}})

    def close(self, kind: type[BaseException] | None, *error: object) -> None:
        """Finish the run there; as failed where an error ended it."""
        self._run.finish(exit_code=0 if kind is None else 1)


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigurationError(
            "--wandb-project needs Weights & Biases: pip install 'iirc-pipeline[wandb]'"
        ) from error
    return wandb


@contextmanager
def trackers(
    tracking: Tracking, run: Path, config: ExperimentConfig, epoch: int, task_id: int
) -> Iterator[list[Tracker]]:
    """Open what follows a run; of several processes the first one tells.

    Args:
        tracking: Who follows.
        run: The run's folder.
        config: The run's configuration.
        epoch: See :class:`TensorBoard`.
        task_id: Likewise.

    Raises:
        ConfigurationError: Something that was asked for is not installed.
    """
    with ExitStack() as stack:
        opened: list[Tracker] = []
        if rank() == 0 and tracking.tensorboard and _is_utf8(run):
            tensorboard = TensorBoard(run / TENSORBOARD_NAME, epoch, task_id)
            stack.callback(tensorboard.close)
            opened.append(tensorboard)
        if rank() == 0 and tracking.wandb_project is not None:
            wandb = WeightsAndBiases(run, tracking.wandb_project, config)
            stack.push(wandb.close)
            opened.append(wandb)
        yield opened


def _is_utf8(run: Path) -> bool:
    """Tell whether TensorBoard can write into a folder; where it cannot, a warning says so."""
    try:
        str(run).encode()
    except UnicodeEncodeError:
        warnings.warn("no curves for TensorBoard: the folder's path is not UTF-8", stacklevel=2)
        return False
    return True


def epoch_scalars(split: str, record: Mapping[str, float]) -> dict[str, float]:
    """Return what is shown of a split's numbers after an epoch."""
    shown = {"loss": "loss", "lr": "learning rate", **shown_labels()}
    return {f"{split}/{shown[name]}": value for name, value in record.items() if name in shown}


def task_scalars(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return what is shown of a model's evaluations after a task."""
    return {
        f"{record['split']} {label}/{_task_name(record['task'])}": record[name]
        for record in records
        for name, label in shown_labels().items()
    }


def _task_name(task: int | str) -> str:
    return "all seen classes" if task == "all" else f"task {task}"
