"""``iirc data``: the commands of the data half, and a picture of what training sees."""

from typing import ClassVar

import typer

from iirc_data.commands import data
from iirc_train.cli.lazy import LazyGroup


class _DataCommands(LazyGroup):
    places: ClassVar = {
        "shard": "iirc_data.commands.shard:app",
        "index": "iirc_data.commands.index:index_shards",
        "cache": "iirc_data.commands.cache:show_cache",
        "show": "iirc_train.cli.show:show",
    }
    summaries: ClassVar = {
        "show": "Draw the images that begin a task's training, augmented, with their visible "
        "labels."
    }


app = typer.Typer(
    cls=_DataCommands, help=data.app.info.help, no_args_is_help=True, add_completion=False
)
app.add_typer(data.app)
