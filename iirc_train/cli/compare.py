"""``iirc compare``: a table of runs."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import plain_console
from iirc_train.cli.report import RUNS_HELP
from iirc_train.config.places import at_home
from iirc_train.report.comparison import compare, write_csv, write_latex
from iirc_train.report.runs import find_runs
from iirc_train.report.tables import comparison_tables
from iirc_train.report.wide_tables import print_tables, terminal_width
from iirc_train.runtime.lines import print_line


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help=RUNS_HELP)],
    csv: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    latex: Annotated[Path | None, typer.Option(help="LaTeX file (booktabs) to write.")] = None,
) -> None:
    """Compare runs in a table: mean and standard deviation over schedules and seeds."""
    console = plain_console()
    found = find_runs(map(at_home, runs))
    comparisons = compare(found.by_benchmark())
    for comparison in comparisons:
        print_tables(console, comparison_tables(comparison, terminal_width(console)))
    for note in found.notes():
        print_line(console, note)
    for path, write in ((csv, write_csv), (latex, write_latex)):
        if path is not None:
            write(comparisons, at_home(path))
            print_line(console, f"written: {path}")
