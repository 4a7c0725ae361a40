"""The command ``iirc``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iirc_data.commands import benchmarks, data
from iirc_data.console import errors_in_one_line
from iirc_train.commands import presets
from iirc_train.commands.compare import compare_runs
from iirc_train.commands.report import report
from iirc_train.commands.show import show
from iirc_train.commands.sweep import sweep
from iirc_train.commands.train import train
from iirc_train.demo import run_demo

app = typer.Typer(
    help="Incremental implicitly-refined classification, data pipeline first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(benchmarks.app, name="benchmarks")
data.app.command("show")(show)  # what training sees takes more than the data half has
app.add_typer(data.app, name="data")
app.add_typer(presets.app, name="presets")
app.command("compare")(compare_runs)
app.command()(report)
console = Console()


def main() -> None:
    """Run the command; known errors are one line, not a stack trace."""
    with errors_in_one_line():
        app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """See the whole pipeline at work on drawn images, in minutes."""
    run_demo(output, seed, console)


app.command()(train)
app.command()(sweep)
