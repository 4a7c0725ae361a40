"""What a run shows while it works: bars on a terminal, plain lines elsewhere."""

from collections.abc import Iterable
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


class _Bars(Progress):
    """Bars, and a line below: beside them it would leave no room for the times."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.note, no_wrap=True, overflow="ellipsis")


class _DoneColumn(ProgressColumn):
    """How many of how many, of what takes so many steps."""

    def render(self, task: Task) -> Text:
        steps = task.fields["steps"]
        done, total = (int(count or 0) // steps for count in (task.completed, task.total))
        return Text(f"{done}/{total} {task.fields['unit']}")


class TrainingProgress:
    """Follows one run.

    Args:
        console: Where to show it.
        title: Name of the run.
        n_tasks: Number of its tasks.
        n_done: Number of tasks that were learned before.
    """

    def __init__(self, console: Console, title: str, n_tasks: int, n_done: int = 0) -> None:
        self._console = console
        self._progress = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            _DoneColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
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
        epochs_done: int = 0,
    ) -> None:
        """Show that a task begins, or goes on.

        Args:
            task_id: Number of the task.
            class_names: The classes that it introduces.
            n_epochs: Number of its epochs.
            n_batches: Batches per epoch.
            epochs_done: Epochs that were learned before.
        """
        self._steps = self._progress.add_task(
            f"  task {task_id}",
            total=n_epochs * n_batches,
            completed=epochs_done * n_batches,
            unit="epochs",
            steps=n_batches,
        )
        self._progress.note = f"  learns {', '.join(class_names)}"

    def batch_done(self) -> None:
        """Show that a batch was learned."""
        if self._steps is not None:
            self._progress.advance(self._steps)

    def epoch_done(self, record: dict[str, Any], images_per_second: float) -> None:
        """Show an epoch's numbers."""
        note = (
            f"loss {record['loss']:.4f}  "
            f"{METRICS[MAIN_METRIC].label} {record[MAIN_METRIC]:.3f}  "
            f"{images_per_second:,.0f} images/s"
        )
        self._progress.note = f"  {note}"
        if not self._console.is_terminal:
            where = f"task {record['task']} epoch {record['epoch']}"
            print_line(self._console, f"{self._title}: {where}: {note}")

    def task_done(self, task_id: int, metrics: dict[str, float]) -> None:
        """Show what the model scores on all classes seen so far."""
        if self._steps is not None:
            self._progress.remove_task(self._steps)
            self._steps = None
        self._progress.note = ""
        self._progress.advance(self._tasks)
        line = Text(f"{self._title}: after task {task_id} of 0-{self._n_tasks - 1}: ")
        for name, label in shown_labels().items():
            line.append(f"{label} ")
            line.append(f"{metrics[name]:.3f}", "bold" if name == MAIN_METRIC else None)
            line.append("  ")
        line.right_crop(1)
        line.append("over all seen classes")
        self._console.print(line, soft_wrap=True)
