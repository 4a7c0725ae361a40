"""Locks: one command at a time writes a folder, one process or thread at a time writes a file."""

import errno
import math
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from iirc_data.errors import InUseError
from iirc_data.files import hidden_neighbour, make_folder

if sys.platform != "win32":
    import fcntl

Lock = TypeVar("Lock")

LOCK_NAME = ".lock"
_ATTEMPTS = 10
_SECONDS_BETWEEN_TRIES = 0.01
_LONGEST_WAIT = 1800.0  # seconds; without flock, a dead owner on another host goes unnoticed
_LONGEST_PAUSE = 0.1
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def sole_user(
    folder: Path, *, patience: float = 0.0, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold a folder for this process alone.

    The operating system releases the folder if the process dies. Where the file system has no
    flock, a file stands for the lock; the next command on the same host sees that its owner died.

    The folder is created if missing, and removed at the end if it is empty.

    Args:
        folder: The folder.
        patience: Seconds to wait for another process.
        check: Called again and again while waiting; it may raise.

    Raises:
        InUseError: Another process holds the folder.
        OSError: The folder cannot be created.
    """
    lock = _waited_for(lambda: _acquired(folder), patience, check)
    path = folder / LOCK_NAME
    with_flock = not isinstance(lock, SoftFileLock)  # otherwise filelock owns the lock file
    if with_flock:
        with suppress(OSError):  # in filelock's format, only to report who holds the folder
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
    try:
        yield
    finally:
        if with_flock:  # before the release: a process that has opened the removed file tries again
            path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def sole_writer_of(
    path: Path, *, patience: float | None = None, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Wait until no other thread or process writes a file, then hold the file.

    The operating system releases the file if the process dies. Where the file system has no flock,
    another file stands for the lock, as in :func:`sole_user`.

    Args:
        path: The file; its folder must exist.
        patience: Seconds to wait; None for half an hour without flock, and for ever with it.
        check: Called again and again while waiting; it may raise.

    Raises:
        InUseError: Another thread or process has held the file for so long.
        OSError: The lock cannot be created.
    """
    lock_path = hidden_neighbour(path, "lock")
    with_flock = has_flock(path.parent)
    lock = _lock_of_writer(lock_path, with_flock=with_flock)
    longest = math.inf if with_flock else _LONGEST_WAIT

    def acquire() -> None:
        try:
            lock.acquire()
        except Timeout:
            raise _in_use(path, lock_path, is_soft=not with_flock) from None

    longest_pause = _SECONDS_BETWEEN_TRIES if patience is None else _LONGEST_PAUSE
    _waited_for(acquire, longest if patience is None else patience, check, longest_pause)
    try:
        yield
    finally:
        try:
            if with_flock:  # before the release: who has opened the removed file tries again
                lock_path.unlink(missing_ok=True)
        finally:
            lock.release()


def _lock_of_writer(path: Path, *, with_flock: bool) -> "BaseFileLock | _Flock":
    """Return a lock that another thread may release."""
    if not with_flock:
        return SoftFileLock(path, blocking=False, thread_local=False)
    if sys.platform == "win32":
        return FileLock(path, blocking=False, thread_local=False)
    return _Flock(path)


class _Flock:
    """filelock's lock by flock, in a fraction of its time: caches take several locks per block.

    Args:
        path: The lock file, which its last holder removes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            Timeout: Another thread or process holds it.
            OSError: The lock file cannot be opened.
        """
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:  # otherwise its holder has just removed it
                    self._descriptor, descriptor = descriptor, -1
                    return
            except BlockingIOError:
                raise Timeout(str(self._path)) from None
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Give the lock up."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def _waited_for(
    acquire: Callable[[], Lock],
    patience: float,
    check: Callable[[], None],
    longest_pause: float = _LONGEST_PAUSE,
) -> Lock:
    deadline, pause = time.monotonic() + patience, 0.005
    while True:
        try:
            return acquire()
        except InUseError:
            if time.monotonic() >= deadline:
                raise
        check()
        time.sleep(pause)
        pause = min(2 * pause, longest_pause)


def _acquired(folder: Path, attempts: int = _ATTEMPTS) -> BaseFileLock:
    try:
        make_folder(folder)
        kind = FileLock if has_flock(folder) else SoftFileLock
        lock = kind(folder / LOCK_NAME, blocking=False)
        lock.acquire()
    except (FileNotFoundError, FileExistsError):
        if attempts == 1:
            raise
        return _acquired(folder, attempts - 1)  # its last user has just removed the folder
    except Timeout:
        if attempts == 1 or (folder / LOCK_NAME).exists():
            raise _in_use(folder, folder / LOCK_NAME, is_soft=kind is SoftFileLock) from None
        return _acquired(folder, attempts - 1)  # its last user has just released it
    return lock


def has_flock(folder: Path) -> bool:
    """Return whether the file system of a folder has flock, which ends with its process.

    Raises:
        OSError: The folder is missing, or files cannot be created in it.
    """
    # on a temporary file: filelock would try flock on the lock file itself, and version 3.32
    # removes the lock of another process if that fails
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


def _in_use(path: Path, lock_path: Path, *, is_soft: bool) -> InUseError:
    remedy = "wait for it, or give another folder"
    if is_soft:  # the owner may have died on another host
        remedy += f"; if that process has ended, remove {lock_path}"
    return InUseError(f"{path} is in use by {_holder(lock_path)}: {remedy}")


def _holder(path: Path) -> str:
    text = ""
    with suppress(OSError):
        text = path.read_text(errors="replace").strip()
    if match := re.match(r"(\d+)\n([^\n]+)", text):
        process, host = match.groups()
        # in a container, filelock adds the namespace of the process id
        return f"process {process} on {host.partition('?pidns-')[0]}"
    return text if re.fullmatch(r"process \d+ on [^\n]+", text) else "another process"
