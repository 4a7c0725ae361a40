"""How commands tell of errors: one line that helps, not a stack trace."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from iirc_data.errors import IIRCError


def print_error(error: BaseException | str) -> None:
    """Print an error on standard error, however long, as one line."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn errors of this project and of the system into a line and exit status 1.

    What the system says (no space, no permission, a name that is too long) needs no stack trace:
    it names the file.
    """
    try:
        yield
    except (IIRCError, OSError) as error:
        print_error(error)
        raise SystemExit(1) from error
