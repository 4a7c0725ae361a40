"""Printing lines of text verbatim."""

from rich.console import Console
from rich.text import Text


def print_line(console: Console, line: str) -> None:
    """Print a line verbatim: no wrapping, no markup, no emoji codes."""
    console.print(Text(line), soft_wrap=True)
