"""``iirc report``: a page about runs."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import plain_console
from iirc_train.config.places import at_home
from iirc_train.report.page import write_report
from iirc_train.report.runs import find_runs
from iirc_train.runtime.lines import print_line

RUNS_HELP = "Folders of runs, or folders to search for runs."


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help=RUNS_HELP)],
    output: Annotated[Path, typer.Option(help="Folder for page and figures.")] = Path("report"),
) -> None:
    """Write one HTML page about runs, with figures as PNG and SVG."""
    console = plain_console()
    found = find_runs(map(at_home, runs))
    page = write_report(found, at_home(output))
    for note in found.notes():
        print_line(console, note)
    print_line(console, f"report: {page}")
