"""Lines of text on a console, exactly as they are."""

from rich.console import Console
from rich.text import Text


def print_line(console: Console, line: str) -> None:
    """Print a line, however long; brackets and colons in names mean nothing in it."""
    console.print(Text(line), soft_wrap=True)
