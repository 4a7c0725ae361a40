"""The logger ``iirc_train``, and showing what it logs on a console."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from iirc_train.runtime.lines import print_line

logger = logging.getLogger("iirc_train")


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        print_line(self._console, record.getMessage())


@contextmanager
def notes_on(console: Console | None) -> Iterator[None]:
    """Print what the logger ``iirc_train`` logs, from INFO up, on a console inside the block.

    Args:
        console: The console; None leaves logging as the program configured it.
    """
    if console is None:
        yield
        return
    handler, level = _ConsoleHandler(console), logger.level
    logger.addHandler(handler)
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
