"""Progress of a run: bars on a terminal or in a notebook, lines or log messages elsewhere."""

import importlib.util
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from iirc_train.metrics import MAIN_METRIC, METRICS, shown_labels
from iirc_train.runtime.lines import print_line
from iirc_train.runtime.notes import logger
from iirc_train.runtime.waiting import NOTABLE_SHARE


class RunProgress(AbstractContextManager["RunProgress", None]):
    """Progress display of one run; shows nothing where a method is not overridden."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop showing the run."""

    def begin_task(
        self,
        task_id: int,
        class_names: list[str],
        *,
        n_epochs: int,
        n_batches: int,
        batches_done: int = 0,
        stage: str | None = None,
    ) -> None:
        """Show that a task, or a stage of it, starts or resumes.

        Args:
            task_id: Number of the task.
            class_names: The classes that it introduces.
            n_epochs: Number of its epochs.
            n_batches: Batches per epoch.
            batches_done: Batches already trained.
            stage: Name of the stage; None for the main epochs. The numbers are those of the stage.
        """

    def batch_done(self) -> None:
        """Show that a batch was trained."""

    def epoch_done(
        self, record: dict[str, Any], images_per_second: float, waiting_share: float = 0.0
    ) -> None:
        """Show an epoch's loss, score and speed.

        Args:
            record: The epoch's line of ``metrics.jsonl``.
            images_per_second: Images trained on per second.
            waiting_share: Fraction of the time in which the network waited for images; shown only
                if it is notable.
        """

    def task_done(self, task_id: int, metrics: dict[str, float]) -> None:
        """Show the scores on all classes seen so far."""


def run_progress(console: Console | None, title: str, n_tasks: int, n_done: int) -> RunProgress:
    """Return a progress display for a run.

    Args:
        console: The console to show it on; None logs it to the logger ``iirc_train``.
        title: Name of the run.
        n_tasks: Number of its tasks.
        n_done: Number of tasks already trained.
    """
    if console is None:
        return LoggedProgress(title, n_tasks)
    return TrainingProgress(console, title, n_tasks, n_done)


def can_draw_bars(console: Console) -> bool:
    """Return whether a console shows bars: a terminal, or a notebook with ``ipywidgets``."""
    in_notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal or in_notebook


class LoggedProgress(RunProgress):
    """Logs a line when a task begins, one per epoch and one per task, at level INFO.

    Args:
        title: Name of the run.
        n_tasks: Number of its tasks.
    """

    def __init__(self, title: str, n_tasks: int) -> None:
        self._title = title
        self._n_tasks = n_tasks

    def begin_task(
        self,
        task_id: int,
        class_names: list[str],
        *,
        n_epochs: int,
        n_batches: int,
        batches_done: int = 0,
        stage: str | None = None,
    ) -> None:
        """See :class:`RunProgress`."""
        line = _begin_line(self._title, task_id, class_names, n_epochs, n_batches, stage)
        logger.info("%s", line)

    def epoch_done(
        self, record: dict[str, Any], images_per_second: float, waiting_share: float = 0.0
    ) -> None:
        """See :class:`RunProgress`."""
        note = _epoch_note(record, images_per_second, waiting_share)
        logger.info("%s", _epoch_line(self._title, record, note))

    def task_done(self, task_id: int, metrics: dict[str, float]) -> None:
        """See :class:`RunProgress`."""
        logger.info("%s", _task_line(self._title, task_id, self._n_tasks, metrics).plain)


class _Bars(Progress):
    """Bars and a note on a line of its own, since the times take the rest of a bar's line."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.note, no_wrap=True, overflow="ellipsis")


class _DoneColumn(ProgressColumn):
    """Shows ``completed/total``, counted in units of ``steps`` steps."""

    def render(self, task: Task) -> Text:
        steps = task.fields["steps"]
        done, total = (int(count or 0) // steps for count in (task.completed, task.total))
        return Text(f"{done}/{total} {task.fields['unit']}")


class TrainingProgress(RunProgress):
    """Shows a run on a console: bars if :func:`can_draw_bars`, else lines like those of the log.

    Args:
        console: The console.
        title: Name of the run.
        n_tasks: Number of its tasks.
        n_done: Number of tasks already trained.
    """

    def __init__(self, console: Console, title: str, n_tasks: int, n_done: int = 0) -> None:
        self._console = console
        self._has_bars = can_draw_bars(console)
        self._progress = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            _DoneColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._has_bars,
        )
        self._title = title
        self._n_tasks = n_tasks
        self._tasks = self._progress.add_task(
            title, total=n_tasks, completed=n_done, unit="tasks", steps=1
        )
        self._steps: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def begin_task(
        self,
        task_id: int,
        class_names: list[str],
        *,
        n_epochs: int,
        n_batches: int,
        batches_done: int = 0,
        stage: str | None = None,
    ) -> None:
        """See :class:`RunProgress`."""
        if self._steps is not None:  # an earlier part of the task
            self._progress.remove_task(self._steps)
        self._steps = self._progress.add_task(
            f"  task {task_id}" if stage is None else f"  task {task_id}, {stage}",
            total=n_epochs * n_batches,
            completed=batches_done,
            unit="epochs",
            steps=n_batches,
        )
        self._progress.note = f"  learns {', '.join(class_names)}"
        if not self._has_bars:
            line = _begin_line(self._title, task_id, class_names, n_epochs, n_batches, stage)
            print_line(self._console, line)

    def batch_done(self) -> None:
        """See :class:`RunProgress`."""
        if self._steps is not None:
            self._progress.advance(self._steps)

    def epoch_done(
        self, record: dict[str, Any], images_per_second: float, waiting_share: float = 0.0
    ) -> None:
        """See :class:`RunProgress`."""
        note = _epoch_note(record, images_per_second, waiting_share)
        self._progress.note = f"  {note}"
        if not self._has_bars:
            print_line(self._console, _epoch_line(self._title, record, note))

    def task_done(self, task_id: int, metrics: dict[str, float]) -> None:
        """See :class:`RunProgress`."""
        if self._steps is not None:
            self._progress.remove_task(self._steps)
            self._steps = None
        self._progress.note = ""
        self._progress.advance(self._tasks)
        line = _task_line(self._title, task_id, self._n_tasks, metrics)
        self._console.print(line, soft_wrap=True)


def _begin_line(
    title: str,
    task_id: int,
    class_names: list[str],
    n_epochs: int,
    n_batches: int,
    stage: str | None,
) -> str:
    in_stage = "" if stage is None else f" ({stage})"
    classes = _counted(len(class_names), "new class", "new classes")
    epochs, batches = _counted(n_epochs, "epoch", "epochs"), _counted(n_batches, "batch", "batches")
    return f"{title}: task {task_id}{in_stage}: {classes}, {epochs} of {batches}"


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _epoch_note(record: dict[str, Any], images_per_second: float, waiting_share: float) -> str:
    note = (
        f"loss {record['loss']:.4f}  {METRICS[MAIN_METRIC].label} {record[MAIN_METRIC]:.3f}  "
        f"{images_per_second:,.0f} images/s"
    )
    if waiting_share < NOTABLE_SHARE:
        return note
    return f"{note}  waited for images {100 * waiting_share:.0f} %"


def _epoch_line(title: str, record: dict[str, Any], note: str) -> str:
    stage = f" ({record['stage']})" if "stage" in record else ""
    return f"{title}: task {record['task']} epoch {record['epoch']}{stage}: {note}"


def _task_line(title: str, task_id: int, n_tasks: int, metrics: dict[str, float]) -> Text:
    of_tasks = f" (of tasks 0 to {n_tasks - 1})" if n_tasks > 1 else ""
    line = Text(f"{title}: after task {task_id}{of_tasks}: ")
    for name, label in shown_labels(metrics).items():
        line.append(f"{label} ")
        line.append(f"{metrics[name]:.3f}", "bold" if name == MAIN_METRIC else None)
        line.append("  ")
    line.right_crop(1)
    line.append("over all seen classes")
    return line
