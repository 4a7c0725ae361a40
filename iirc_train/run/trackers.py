"""Experiment trackers: TensorBoard and Weights & Biases."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch.utils.tensorboard import SummaryWriter

from iirc_data.errors import ConfigurationError
from iirc_data.files import write_atomically
from iirc_data.warning import warn
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.metrics import shown_labels, tracked_labels
from iirc_train.runtime.distributed import rank

TENSORBOARD_NAME = "tensorboard"
WANDB_NAME = "wandb_id.txt"


class Tracking(NamedTuple):
    """The trackers of a run; not part of its configuration, so a resumed run may change them.

    Attributes:
        tensorboard: Write TensorBoard event files into the run's folder.
        wandb_project: Weights & Biases project to log to; None does not log there.
    """

    tensorboard: bool = True
    wandb_project: str | None = None

    def check_installed(self) -> None:
        """Check that the packages of the requested trackers are installed.

        Raises:
            ConfigurationError: One is missing.
        """
        if self.wandb_project is not None:
            _import_wandb()


TENSORBOARD_ONLY = Tracking()


class Tracker(Protocol):
    """Receives the scalars of a run."""

    def epoch_done(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Receive the scalars of an epoch.

        Args:
            epoch: Index of the epoch, counted over all tasks.
            scalars: Name to value.
        """

    def task_done(self, task_id: int, scalars: Mapping[str, float]) -> None:
        """Receive the evaluation scores after a task."""


class TensorBoard:
    """TensorBoard event files: curves over epochs and over tasks.

    If a file cannot be written, it warns once and stops writing; training continues.

    Args:
        folder: Folder of the event files.
        epoch: The next epoch. Events that a killed run wrote for it and for later ones are
            discarded.
        task_id: The next task to be evaluated; likewise.
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
        """Flush and close the event files."""
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
        except Exception as error:  # the writer's thread may raise anything
            if not self._has_failed:
                warn(f"TensorBoard's curves end here: {error}")
            self._has_failed = True


class WeightsAndBiases:
    """A run on Weights & Biases; a resumed run continues the same one.

    Args:
        run: The run's folder.
        project: Name of the project.
        config: The run's configuration.

    Raises:
        ConfigurationError: The package ``wandb`` is not installed, or the service rejects the run.
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
                f"Weights & Biases: {error} To train without the service, set WANDB_MODE=offline "
                "and upload the run later with 'wandb sync'"
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
        """Finish the run, marking it as failed if an error ended it."""
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
    """Open the trackers of a run; only the first of several processes does.

    Args:
        tracking: Which trackers to open.
        run: The run's folder.
        config: The run's configuration.
        epoch: See :class:`TensorBoard`.
        task_id: See :class:`TensorBoard`.

    Raises:
        ConfigurationError: The package of a tracker is not installed.
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
    """Return whether TensorBoard can write into a folder, and warn if it cannot."""
    try:
        str(run).encode()
    except UnicodeEncodeError:
        warn("no curves for TensorBoard: the folder's path is not UTF-8")
        return False
    return True


def epoch_scalars(split: str, record: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars of a split that trackers show after an epoch; stages have their own."""
    shown = {"loss": "loss", "lr": "learning rate", **shown_labels()}
    group = f"{split} {record['stage']}" if "stage" in record else split
    return {f"{group}/{shown[name]}": value for name, value in record.items() if name in shown}


def task_scalars(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scalars of a model's evaluations that trackers show after a task."""
    return {
        f"{record['split']} {label}/{_task_name(record['task'])}": record[name]
        for record in records
        for name, label in _labels(record).items()
    }


def _labels(record: Mapping[str, Any]) -> dict[str, str]:
    return tracked_labels(record) if record["task"] == "all" else shown_labels(record)


def summary_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars of a record of kind ``"task"``: summary numbers, and sizes."""
    others = ("kind", "split", "after_task", "superclasses")
    numbers = {name: number for name, number in record.items() if name not in others}
    return {f"summary/{name.replace('_', ' ')}": value for name, value in numbers.items()}


def _task_name(task: int | str) -> str:
    return "all seen classes" if task == "all" else f"task {task}"
