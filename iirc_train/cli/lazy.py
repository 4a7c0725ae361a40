"""Groups of commands that import a command's module only when it is used.

Some commands do not need torch, whose import takes seconds.
"""

import re
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

_LISTING = "iirc_train.cli.lazy.listing"


class LazyGroup(TyperGroup):
    """A group of commands, some of which are imported on demand.

    Attributes:
        places: Name of each command to import on demand to its ``"module:attribute"``, which is a
            function or a ``typer.Typer``.
        summaries: Help text of commands, in one line, for a list of commands; one that is missing
            here is imported for it.
    """

    places: ClassVar[dict[str, str]] = {}
    summaries: ClassVar[dict[str, str]] = {}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text, without importing the commands whose summary is known."""
        ctx.meta[_LISTING] = True
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *self.places]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, importing it if necessary; for a list of commands, its summary."""
        if ctx.meta.get(_LISTING) and cmd_name in self.summaries:
            return TyperCommand(cmd_name, help=self.summaries[cmd_name])
        if cmd_name not in self.places:
            return super().get_command(ctx, cmd_name)
        module, attribute = self.places[cmd_name].split(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            getattr(function, "renew_options", lambda: None)()  # for methods that a script added
            found.command(cmd_name)(function)
        command = get_command(found)
        command.name = cmd_name
        _join_lines(command)
        return command


def _join_lines(command: Any) -> None:
    """Make each paragraph of the help one line: typer keeps the line breaks of docstrings."""
    if command.help:
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help)
    for inner in getattr(command, "commands", {}).values():
        _join_lines(inner)
