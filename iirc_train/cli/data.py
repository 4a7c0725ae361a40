"""``iirc data``: what the data half has, and a look at what training sees of it."""

from typing import ClassVar

import typer

from iirc_data.commands import data
from iirc_train.cli.lazy import LazyGroup


class _DataCommands(LazyGroup):
    places: ClassVar = {"show": "iirc_train.cli.show:show"}


app = typer.Typer(cls=_DataCommands, help=data.app.info.help, no_args_is_help=True)
app.add_typer(data.app)
