"""Tables for the terminal."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from iirc_train.metrics import metric_label
from iirc_train.report.comparison import Comparison
from iirc_train.run.results import RunResults

_MOST_COLUMNS = 8  # fit beside the names in 80 characters


def task_table(results: RunResults) -> Table:
    """Return a table of the score on each seen task, and over all seen classes, after each task."""
    n_tasks = len(results.all_seen)
    label = metric_label(results.metric)
    title = Text(f"{results.name}: {label} on the test split", style="table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("after task", justify="right")
    for task in range(n_tasks):
        table.add_column(f"task {task}", justify="right")
    table.add_column("all seen", justify="right", style="bold")
    for task in range(n_tasks):
        scores = ["" if math.isnan(x) else f"{x:.3f}" for x in results.by_task[task]]
        table.add_row(str(task), *scores, f"{results.all_seen[task]:.3f}")
    return table


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return tables with a row for each group: the score after each task, and summaries.

    Values over several runs are mean ± standard deviation.
    """
    title = comparison.benchmark
    tables = []
    for start in range(0, comparison.n_tasks, _MOST_COLUMNS):
        tasks = range(start, min(start + _MOST_COLUMNS, comparison.n_tasks))
        table = _table_of_groups(
            f"{title}: {comparison.metric_label} over all classes seen after each task"
        )
        for task in tasks:
            table.add_column(str(task), justify="right")
        for row in comparison.rows:
            scores = row.by_task[tasks.start : tasks.stop]
            table.add_row(Text(row.name), row.runs_text, *(s.text("\n±") for s in scores))
        tables.append(table)
    for shown in comparison.tables:
        table = _table_of_groups(f"{title}: {shown.title}")
        for summary in shown.summaries:
            table.add_column(summary.heading, justify="right")
        for row in comparison.rows:
            scores = [row.summary[summary.name] for summary in shown.summaries]
            table.add_row(Text(row.name), row.runs_text, *(s.text("\n±") for s in scores))
        tables.append(table)
    return tables


def _table_of_groups(title: str) -> Table:
    table = Table(
        title=Text(title, style="table.title"),
        title_justify="left",
        min_width=len(title),  # keeps the title on one line
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("group", overflow="fold")
    table.add_column("runs", justify="right")
    return table
