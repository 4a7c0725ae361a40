"""Tables for the terminal."""

import math

from rich.table import Table

from iirc_train.report.results import RunResults


def task_table(results: RunResults) -> Table:
    """Return the pw-JS on every seen task after each task, and over all seen classes."""
    n_tasks = len(results.all_seen)
    table = Table(title=f"{results.name}: pw-JS on the test split", title_justify="left")
    table.add_column("after task", justify="right")
    for task in range(n_tasks):
        table.add_column(f"task {task}", justify="right")
    table.add_column("all seen", justify="right", style="bold")
    for task in range(n_tasks):
        scores = ["" if math.isnan(x) else f"{x:.3f}" for x in results.by_task[task]]
        table.add_row(str(task), *scores, f"{results.all_seen[task]:.3f}")
    return table


def comparison_table(runs: list[RunResults]) -> Table:
    """Return the pw-JS over all seen classes after each task, one row per run."""
    table = Table(title="pw-JS over all classes seen so far", title_justify="left")
    table.add_column("run")
    for task in range(max(len(run.all_seen) for run in runs)):
        table.add_column(f"after task {task}", justify="right")
    for run in runs:
        table.add_row(run.name, *(f"{score:.3f}" for score in run.all_seen))
    return table
