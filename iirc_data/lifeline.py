"""Processes that never outlive the one that started them."""

import os
from collections.abc import Callable
from contextlib import suppress
from threading import Thread


def exit_after(wait: Callable[[], object]) -> None:
    """End this process at once when a wait ends, however it ends.

    Args:
        wait: Called in a thread. Blocks until the parent process ends, which the end of a pipe
            shows that only the parent holds open.
    """
    Thread(target=_wait_and_exit, args=(wait,), daemon=True).start()


def _wait_and_exit(wait: Callable[[], object]) -> None:
    with suppress(EOFError, OSError):
        wait()
    os._exit(1)
