"""Compares groups of runs, and writes the comparison for spreadsheets and papers."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iirc_data.files import write_atomically
from iirc_train.metrics import metric_label
from iirc_train.report.runs import Group, metric_of_groups
from iirc_train.report.summary import Spread, curve_of, spread
from iirc_train.run.summaries import Summary, SummaryTable, summary_tables


@dataclass(frozen=True)
class Row:
    """The results of a group.

    Attributes:
        name: Name of the group.
        n_runs: Number of its runs.
        n_finished: Number of its finished runs.
        by_task: Score over all seen classes after each task, over all runs.
        summary: The summary numbers by name over the finished runs. If none is finished, over the
            tasks that each run has finished.
    """

    name: str
    n_runs: int
    n_finished: int
    by_task: list[Spread]
    summary: dict[str, Spread]

    @classmethod
    def of(cls, group: Group, metric: str, tables: Sequence[SummaryTable]) -> "Row":
        """Return the results of a group, judged by a metric that all its runs computed.

        Args:
            group: The group.
            metric: Name of the metric.
            tables: The summary numbers to compute.
        """
        complete = [run.results for run in group.complete_runs]
        return cls(
            group.name,
            len(group.runs),
            sum(run.finished for run in group.runs),
            curve_of(group.results(metric)),
            {
                s.name: spread([s.value(run[s.metric]) for run in complete if s.metric in run])
                for table in tables
                for s in table.summaries
            },
        )

    @property
    def runs_text(self) -> str:
        """The number of runs; ``"1 of 2 done"`` if some are not finished."""
        if self.n_finished == self.n_runs:
            return str(self.n_runs)
        return f"{self.n_finished} of {self.n_runs} done"


@dataclass(frozen=True)
class Comparison:
    """A comparison of the groups of one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        rows: A row per group.
        metric: Name of the metric that the runs are judged by.
        tables: The summary numbers, by table.
    """

    benchmark: str
    rows: list[Row]
    metric: str
    tables: tuple[SummaryTable, ...]

    @classmethod
    def of(cls, benchmark: str, groups: Sequence[Group]) -> "Comparison":
        """Compare the groups of a benchmark, by top-1 if all their runs computed it."""
        metric = metric_of_groups(groups)
        computed = {name for group in groups for run in group.runs for name in run.results}
        tables = summary_tables(metric, computed)
        return cls(benchmark, [Row.of(group, metric, tables) for group in groups], metric, tables)

    @property
    def metric_label(self) -> str:
        """What tables call the metric."""
        return metric_label(self.metric)

    @property
    def n_tasks(self) -> int:
        """Largest number of finished tasks of any run."""
        return max(len(row.by_task) for row in self.rows)


def compare(groups: Mapping[str, Sequence[Group]]) -> list[Comparison]:
    """Return a comparison for each benchmark.

    Args:
        groups: The groups of each benchmark, by its name, from :meth:`FoundRuns.by_benchmark`.
    """
    return [Comparison.of(name, members) for name, members in groups.items()]


def write_csv(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write all results, one per line: benchmark, group, quantity, task, mean, sd, runs."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "group", "quantity", "after_task", "mean", "sd", "runs"])
    for comparison in comparisons:
        for row in comparison.rows:
            label = comparison.metric_label
            cells = [(label, str(task), score) for task, score in enumerate(row.by_task)]
            for table in comparison.tables:
                cells += [(s.heading, "", row.summary[s.name]) for s in table.summaries]
            for quantity, task, score in cells:
                if score.n_runs:
                    numbers = [_number(score.mean), _number(score.sd), score.n_runs]
                    writer.writerow([comparison.benchmark, row.name, quantity, task, *numbers])
    _write_text(path, text.getvalue())


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def write_latex(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write LaTeX tables for each benchmark, with a row for each group.

    The tables need the package ``booktabs``. The best mean of each column is bold.
    """
    tables = [_latex_table(comparison, t) for comparison in comparisons for t in comparison.tables]
    _write_text(path, "\n".join(tables))


def _latex_table(comparison: Comparison, table: SummaryTable) -> str:
    best = {
        summary.name: _best(summary, [row.summary[summary.name] for row in comparison.rows])
        for summary in table.summaries
    }
    headings = [escape_latex(summary.heading) for summary in table.summaries]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% {' '.join(comparison.benchmark.split())}: mean and standard deviation over runs",
        f"% {table.title}",
        f"\\begin{{tabular}}{{l{'r' * len(headings)}}}",
        "\\toprule",
        " & ".join(["method", *headings]) + r" \\",
        "\\midrule",
    ]
    for row in comparison.rows:
        cells = [
            _latex_cell(score, bold=score.mean == top)
            for name, top in best.items()
            for score in (row.summary[name],)
        ]
        lines.append(" & ".join([escape_latex(row.name), *cells]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _best(summary: Summary, cells: Sequence[Spread]) -> float:
    means = [cell.mean for cell in cells if cell.n_runs]
    if not means:
        return math.nan
    return min(means) if summary.lower_is_better else max(means)


def _latex_cell(score: Spread, *, bold: bool) -> str:
    if not score.n_runs:
        return "--"
    mean = f"\\mathbf{{{score.mean:.3f}}}" if bold else f"{score.mean:.3f}"
    return f"${mean} \\pm {score.sd:.3f}$" if score.n_runs > 1 else f"${mean}$"


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escape_latex(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())
