"""``iirc data``: the commands of the data half, and a picture of what training sees."""

from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from iirc_data.commands import data
from iirc_train.cli.lazy import LazyGroup

_LISTING = "iirc_train.cli.data.listing"


class _DataCommands(LazyGroup):
    places: ClassVar = {
        "shard": "iirc_data.commands.shard:app",
        "index": "iirc_data.commands.index:index_shards",
        "cache": "iirc_data.commands.cache:show_cache",
        "show": "iirc_train.cli.show:show",
    }
    # importing the module of ``show`` takes seconds, because it imports torch
    summaries: ClassVar = {
        "show": "Draw the images that begin a task's training, augmented, with their visible "
        "labels."
    }

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text, without importing the commands whose summary is known."""
        ctx.meta[_LISTING] = True
        super().format_help(ctx, formatter)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; for a list of commands, a stand-in that has the summary."""
        if ctx.meta.get(_LISTING) and cmd_name in self.summaries:
            return TyperCommand(cmd_name, help=self.summaries[cmd_name])
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_DataCommands, help=data.app.info.help, no_args_is_help=True, add_completion=False
)
app.add_typer(data.app)
