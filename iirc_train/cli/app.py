"""The command ``iirc``."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from iirc_data.console import errors_in_one_line
from iirc_data.errors import ConfigurationError
from iirc_train.cli.lazy import LazyGroup
from iirc_train.runtime.program import this_program


class _Commands(LazyGroup):
    places: ClassVar = {
        "demo": "iirc_train.cli.demo:demo",
        "benchmarks": "iirc_train.cli.benchmarks:app",
        "data": "iirc_train.cli.data:app",
        "presets": "iirc_train.cli.presets:app",
        "features": "iirc_train.cli.features:app",
        "train": "iirc_train.cli.train:train",
        "sweep": "iirc_train.cli.sweep:sweep",
        "report": "iirc_train.cli.report:report",
        "compare": "iirc_train.cli.compare:compare_runs",
        "doctor": "iirc_train.cli.doctor:doctor",
    }
    summaries: ClassVar = {
        "demo": "Run the whole pipeline on drawn images, in minutes.",
        "benchmarks": "List the benchmarks, show one, or make one.",
        "data": "Make, inspect, verify, copy and compare sharded datasets.",
        "presets": "List the published configurations, or show one.",
        "features": "Compute the features of frozen networks ahead, and copy them.",
        "train": "Train a method through all tasks of a benchmark's schedule.",
        "sweep": "Train every combination of methods, settings, schedules and seeds, each in its "
        "own folder.",
        "report": "Write one HTML page about runs, with figures as PNG and SVG.",
        "compare": "Compare runs in a table: mean and standard deviation over schedules and seeds.",
        "doctor": "Examine this machine: versions, devices, decoders, limits, and what to do.",
    }


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"iirc-pipeline {version('iirc-pipeline')}")
        raise typer.Exit


@app.callback()
def iirc(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the installed version and exit.",
        ),
    ] = False,
) -> None:
    """Incremental implicitly-refined classification, data pipeline first."""


def main() -> None:
    """Run the command; an expected error prints one line instead of a stack trace.

    A script may first add methods to :data:`iirc_train.methods.METHODS`. The processes that a
    command starts then run the same script.
    """
    with errors_in_one_line():
        _check_current_folder()
        app(obj=this_program())  # the program for processes that commands start


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "the current folder was removed: change to another one with cd"
        ) from error
