"""Ctrl-C, and SIGTERM, which cluster schedulers send to stop a job."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from iirc_data.console import one_line, plain_console


@contextmanager
def interrupted_in_one_line(what_to_do: str | Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, print one line and exit with the usual status.

    Args:
        what_to_do: Advice to print, or a function that returns the advice when it is needed. An
            empty text prints nothing, for a process whose parent prints the advice.
    """
    earlier = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        line = what_to_do if isinstance(what_to_do, str) else what_to_do()
        if line:
            plain_console(stderr=True).print(f"interrupted: {one_line(line)}", soft_wrap=True)
        number = signal.SIGTERM if interrupt.args == (signal.SIGTERM,) else signal.SIGINT
        sys.exit(128 + number)
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(signal.SIGTERM)
