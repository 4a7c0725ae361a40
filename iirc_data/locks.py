"""A folder is written by one command at a time."""

import errno
import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from iirc_data.errors import InUseError
from iirc_data.files import make_folder

_LOCK = ".lock"
_LOCK_WITHOUT_FLOCK = ".lock.soft"
_ATTEMPTS = 10
_NO_FLOCK = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system without flock answers, besides ENOSYS, which filelock handles itself."""


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone.

    The operating system releases the folder if the process dies. Where the file system has no
    flock, a file stands for the lock; the next command on the same host sees that its owner died.

    The folder is made if missing, and removed again where it stays empty.

    Raises:
        InUseError: Another process holds it.
        OSError: It cannot be made.
    """
    lock = _acquired(folder)
    path = Path(lock.lock_file)
    is_soft = hasattr(lock, "pid")  # then the file is the lock, and filelock removes it
    if not is_soft:
        with suppress(OSError):  # tells others who it is, in filelock's form; all works without
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
    try:
        yield
    finally:
        if not is_soft:  # while it is held: one that waits for the removed file tries again
            path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def _acquired(folder: Path, attempts: int = _ATTEMPTS) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / _LOCK, blocking=False)
    try:
        make_folder(folder)
        try:
            _acquire(lock)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            # the file that flock refused says nothing about who holds the folder
            (folder / _LOCK).unlink(missing_ok=True)
            lock = SoftFileLock(folder / _LOCK_WITHOUT_FLOCK, blocking=False)
            _acquire(lock)
    except (FileNotFoundError, FileExistsError):
        if attempts == 1:
            raise
        return _acquired(folder, attempts - 1)  # its last user removed the folder just now
    except Timeout:
        if attempts == 1 or Path(lock.lock_file).exists():
            raise _in_use(folder, lock) from None
        return _acquired(folder, attempts - 1)  # its last user released it just now
    return lock


def _acquire(lock: BaseFileLock) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flock not supported")  # a file serves as well
        lock.acquire()


def _in_use(folder: Path, lock: BaseFileLock) -> InUseError:
    path = Path(lock.lock_file)
    remedy = "wait for it, or give another folder"
    if hasattr(lock, "pid"):  # the owner on another host may have died unseen
        remedy += f"; if that process has ended, remove {path}"
    return InUseError(f"{folder} is in use by {_holder(path)}: {remedy}")


def _holder(path: Path) -> str:
    text = ""
    with suppress(OSError):
        text = path.read_text(errors="replace").strip()
    if match := re.match(r"(\d+)\n([^\n]+)", text):
        process, host = match.groups()
        # filelock notes the namespace of the process numbers, where it is a container's
        return f"process {process} on {host.partition('?pidns-')[0]}"
    return text if re.fullmatch(r"process \d+ on [^\n]+", text) else "another process"
