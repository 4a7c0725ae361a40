"""Output of commands: literal text on any terminal, and errors in one line."""

import os
import select
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from iirc_data.errors import IIRCError
from iirc_data.masking import masked

_STATUS_OF_SIGPIPE = 141


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text literally, without Rich markup and emoji codes."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


@contextmanager
def shown(display: Progress) -> Iterator[Progress]:
    """Show a progress display inside the block; nothing stays of it if no task got under way."""
    display.start()
    try:
        yield display
    finally:
        if any(task.completed for task in display.tasks):
            display.stop()
        else:
            display.live.transient = True
            display.live.stop()


def one_line(text: str) -> str:
    """Return a text in one line, with control characters and undecodable bytes escaped.

    Signatures and logins in web addresses are masked.
    """
    return "".join(map(_visible, masked(" ".join(text.splitlines()))))


def print_error(error: BaseException | str) -> None:
    """Print an error to standard error, in one line however long it is."""
    line = Text.assemble(("error:", "bold red"), " ", one_line(str(error)))
    plain_console(stderr=True).print(line, soft_wrap=True)


def print_warning(text: str) -> None:
    """Print a warning to standard error, in one line however long it is."""
    # written as text, so that it appears above the bars of a progress display
    typer.echo(f"warning: {one_line(text)}", err=True)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print warnings in one line each inside the block, without file, category and source line."""
    earlier = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        warnings.showwarning = earlier


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print_warning(str(message))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print errors of this project and of the operating system in one line; exit with status 1.

    Warnings become lines, too: see :func:`warnings_in_one_line`.

    If nobody reads the output any more (``… | head``), it ends without a word, with status 141.

    An error of the operating system (no space, no permission, name too long) names its file and
    needs no stack trace. Inside the block, output never fails because of its encoding.
    """
    print_on_any_terminal()
    try:
        with warnings_in_one_line():
            yield
    except (IIRCError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _no_one_reads():
            raise SystemExit(_STATUS_OF_SIGPIPE) from error
        print_error(error)
        raise SystemExit(1) from error


def _no_one_reads() -> bool:
    """Return whether a pipe that output goes to was closed, as ``head`` does; silence it then."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # no file; no poll on Windows
            pipe = select.poll()
            pipe.register(stream.fileno(), 0)
            if pipe.poll(0):  # with an error or a hang-up, the only events without a mask
                # otherwise the interpreter reports the same error again when it flushes at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                return True
    return False


def print_on_any_terminal() -> None:
    """Escape characters that standard output or error cannot encode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_tool(function: Callable[..., None]) -> None:
    """Run a function as a command-line program, with help and error messages."""
    with errors_in_one_line():
        typer.run(function)


def typed_command() -> str:
    """Return the command line that started this process, as a user would type it again."""
    spec, program = sys.modules["__main__"].__spec__, Path(sys.argv[0])
    if spec is not None:  # python -m; spec names the module __main__ of a package
        words = ["python", "-m", spec.name.removesuffix(".__main__")]
    else:
        words = ["python", sys.argv[0]] if program.suffix == ".py" else [program.name]
    return shlex.join([*words, *sys.argv[1:]])


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
