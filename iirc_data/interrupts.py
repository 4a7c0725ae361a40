"""Ctrl-C, and the SIGTERM with which schedulers of clusters stop a job."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from iirc_data.console import one_line, plain_console


@contextmanager
def interrupted_in_one_line(what_to_do: str | Callable[[], str]) -> Iterator[None]:
    """End with one line and the usual exit status when interrupted; SIGTERM is as Ctrl-C.

    Args:
        what_to_do: Said to the user, or what tells it when that is known; nothing is said where
            it is empty, as where another process speaks.
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
