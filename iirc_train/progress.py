"""What a run shows while it works: bars on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._title = title
        self._n_tasks = n_tasks
        self._tasks = self._progress.add_task(title, total=n_tasks, completed=n_done, note="tasks")
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
        self, task_id: int, class_names: list[str], n_batches: int, n_done: int = 0
    ) -> None:
        """Show that a task begins.

        Args:
            task_id: Number of the task.
            class_names: The classes that it introduces.
            n_batches: Batches of all its epochs together.
            n_done: Batches that were learned before.
        """
        names = ", ".join(class_names[:4]) + (", …" if len(class_names) > 4 else "")
        self._steps = self._progress.add_task(
            f"  task {task_id}: {names}", total=n_batches, completed=n_done, note=""
        )

    def batch_done(self) -> None:
        """Show that a batch was learned."""
        if self._steps is not None:
            self._progress.advance(self._steps)

    def epoch_done(self, record: dict[str, Any], images_per_second: float) -> None:
        """Show an epoch's numbers."""
        note = (
            f"loss {record['loss']:.4f}  pw-JS {record['modified_jaccard_sim']:.3f}  "
            f"{images_per_second:,.0f} images/s"
        )
        if self._steps is not None:
            self._progress.update(self._steps, note=note)
        if not self._console.is_terminal:
            where = f"task {record['task']} epoch {record['epoch']}"
            self._console.print(f"{self._title}: {where}: {note}", highlight=False)

    def task_done(self, task_id: int, metrics: dict[str, float]) -> None:
        """Show what the model scores on all classes seen so far."""
        if self._steps is not None:
            self._progress.remove_task(self._steps)
            self._steps = None
        self._progress.advance(self._tasks)
        self._console.print(
            f"{self._title}: after task {task_id} of 0-{self._n_tasks - 1}: "
            f"pw-JS [bold]{metrics['modified_jaccard_sim']:.3f}[/]  "
            f"JS {metrics['jaccard_sim']:.3f} over all seen classes",
            highlight=False,
        )
