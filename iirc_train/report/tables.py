"""Tables for the terminal."""

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from iirc_train.report.comparison import Comparison
from iirc_train.report.results import RunResults


def task_table(results: RunResults) -> Table:
    """Return the pw-JS on every seen task after each task, and over all seen classes."""
    n_tasks = len(results.all_seen)
    table = Table(title=f"{escape(results.name)}: pw-JS on the test split", title_justify="left")
    table.add_column("after task", justify="right")
    for task in range(n_tasks):
        table.add_column(f"task {task}", justify="right")
    table.add_column("all seen", justify="right", style="bold")
    for task in range(n_tasks):
        scores = ["" if math.isnan(x) else f"{x:.3f}" for x in results.by_task[task]]
        table.add_row(str(task), *scores, f"{results.all_seen[task]:.3f}")
    return table


def comparison_tables(comparison: Comparison) -> Sequence[Table]:
    """Return two tables, a row per group: the pw-JS after each task, and what sums it up.

    Where runs are several, they give mean ± standard deviation.
    """
    title = f"{escape(comparison.benchmark)}: "
    by_task = Table(title=f"{title}pw-JS over all classes seen after each task")
    summary = Table(title=f"{title}summary over the finished runs")
    for table in (by_task, summary):
        table.title_justify = "left"
        table.add_column("group")
        table.add_column("runs", justify="right")
    for task in range(comparison.n_tasks):
        by_task.add_column(str(task), justify="right")
    for heading in comparison.headings:
        summary.add_column(heading, justify="right")
    for row in comparison.rows:
        by_task.add_row(escape(row.name), row.runs_text, *(s.text("\n±") for s in row.by_task))
        summary.add_row(escape(row.name), row.runs_text, *(s.text() for s in row.summary))
    return by_task, summary
