"""A folder is written by one command at a time."""

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from iirc_data.errors import InUseError
from iirc_data.files import make_folder

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_ATTEMPTS = 10
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


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
    path = folder / _LOCK
    has_flock = not isinstance(lock, SoftFileLock)  # else the file is the lock, and filelock's own
    if has_flock:
        with suppress(OSError):  # in filelock's form, only to say who holds the folder
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
    try:
        yield
    finally:
        if has_flock:  # while it is held: a process that has the removed file open tries again
            path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def _acquired(folder: Path, attempts: int = _ATTEMPTS) -> BaseFileLock:
    try:
        make_folder(folder)
        kind = FileLock if _has_flock(folder) else SoftFileLock
        lock = kind(folder / _LOCK, blocking=False)
        lock.acquire()
    except (FileNotFoundError, FileExistsError):
        if attempts == 1:
            raise
        return _acquired(folder, attempts - 1)  # its last user removed the folder just now
    except Timeout:
        if attempts == 1 or (folder / _LOCK).exists():
            raise _in_use(folder, is_soft=kind is SoftFileLock) from None
        return _acquired(folder, attempts - 1)  # its last user released it just now
    return lock


def _has_flock(folder: Path) -> bool:
    # on a file of its own: filelock tries flock on the lock, and 3.32 removes the lock of another
    # process when that fails
    if sys.platform == "win32":
        return True
    try:
        with TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise OSError(error.errno, error.strerror, str(folder)) from error  # not the nameless file
    return True


def _in_use(folder: Path, *, is_soft: bool) -> InUseError:
    path = folder / _LOCK
    remedy = "wait for it, or give another folder"
    if is_soft:  # the owner on another host may have died unseen
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
