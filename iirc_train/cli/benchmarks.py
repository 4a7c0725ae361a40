"""``iirc benchmarks``: the commands of the data half; ``make`` is imported when it is used."""

from typing import ClassVar

import typer

from iirc_data.commands import benchmarks
from iirc_train.cli.lazy import LazyGroup


class _BenchmarkCommands(LazyGroup):
    places: ClassVar = {"make": "iirc_data.commands.make_benchmark:make"}
    summaries: ClassVar = {
        "make": "Make a benchmark from a taxonomy of any depth: schedules, splits and sampling."
    }


app = typer.Typer(cls=_BenchmarkCommands, help=benchmarks.app.info.help)
app.callback(invoke_without_command=True)(benchmarks.list_benchmarks)
app.command("show")(benchmarks.show)
