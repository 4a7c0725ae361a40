"""A folder is written by one command at a time."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from iirc_data.errors import InUseError

_LOCK = ".lock"


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the system lets go of it where one is killed.

    The folder is made if missing, and removed again where it stays empty.

    Raises:
        InUseError: Another process holds it.
        OSError: It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(
            f"{folder} is in use by {_holder(path)}: wait for it, or give another folder"
        ) from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text() or "another process"
    return "another process"
