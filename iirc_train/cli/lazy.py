"""Groups of commands whose modules are imported when they are called: not all need torch."""

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command


class LazyGroup(TyperGroup):
    """A group of commands, some of which are named by where they stand.

    Attributes:
        places: Of each such command ``"module:attribute"``, a function or a ``typer.Typer``.
    """

    places: ClassVar[dict[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *self.places]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported now if it is named by where it stands."""
        if cmd_name not in self.places:
            return super().get_command(ctx, cmd_name)
        module, attribute = self.places[cmd_name].split(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            getattr(function, "renew_options", lambda: None)()  # a script may have added methods
            found.command(cmd_name)(function)
        command = get_command(found)
        command.name = cmd_name
        return command
