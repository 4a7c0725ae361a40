"""Tables for the terminal."""

import math

from rich.table import Table

from iirc_train.metrics import metric_label
from iirc_train.report.comparison import Comparison
from iirc_train.report.wide_tables import Column, tables_within
from iirc_train.run.results import RunResults


def task_tables(results: RunResults, width: int | None = None) -> list[Table]:
    """Return tables of the score on each seen task, and over all seen classes, after each task.

    Args:
        results: The results of a run.
        width: Width that each table fits; None for one table of any width.
    """
    tasks = range(len(results.all_seen))
    columns = [
        Column(
            f"task {task}",
            [
                "" if math.isnan(score) else f"{score:.3f}"
                for score in (results.by_task[after][task] for after in tasks)
            ],
        )
        for task in tasks
    ]
    columns.append(Column("all seen", [f"{x:.3f}" for x in results.all_seen], style="bold"))
    title = f"{results.name}: {metric_label(results.metric)} on the test split"
    return tables_within(width, title, [Column("after task", list(map(str, tasks)))], columns)


def comparison_tables(comparison: Comparison, width: int | None = None) -> list[Table]:
    """Return tables with a row for each group: the score after each task, and summaries.

    Values over several runs are mean ± standard deviation.

    Args:
        comparison: The comparison.
        width: Width that each table fits; None for one table of each kind, of any width.
    """
    rows = comparison.rows
    keys = [
        Column("group", [row.name for row in rows], justify="left"),
        Column("runs", [row.runs_text for row in rows]),
    ]
    columns = [
        Column(
            str(task),
            [row.by_task[task].text("\n±") if task < len(row.by_task) else "" for row in rows],
        )
        for task in range(comparison.n_tasks)
    ]
    title = f"{comparison.metric_label} over all classes seen after each task"
    tables = tables_within(width, f"{comparison.benchmark}: {title}", keys, columns)
    for shown in comparison.tables:
        columns = [
            Column(summary.heading, [row.summary[summary.name].text("\n±") for row in rows])
            for summary in shown.summaries
        ]
        tables += tables_within(width, f"{comparison.benchmark}: {shown.title}", keys, columns)
    return tables
