"""Writing files so that a final name always refers to a complete file."""

import errno
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any

from iirc_data.reading import open_regular

_CHUNK = 1 << 22
_LONGEST_NAME = 255  # bytes, on every common file system
_LONGEST_ENDING = 110
_CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# errors of file systems that treat a folder as a file that is not open for writing
_CANNOT_SYNC_FOLDERS = _CANNOT_SYNC | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


@contextmanager
def write_atomically(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of ``path``; on success fsync it and rename it into place.

    On any exception the temporary file is removed, and ``path`` is left unchanged.

    Args:
        path: Final name; its folder is created if missing.
        durable: Wait until the file and its name are on the disk, so that they survive a power
            failure.

    Yields:
        The binary file to write to.
    """
    make_folder(path.parent, durable=durable)
    temporary = partial_file(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durable:
                sync_file(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the user must see the first error
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Create a folder and its parents, if missing.

    Args:
        folder: The folder.
        durable: Wait until the new names are on the disk.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if durable:
        for path in missing:
            sync_folder(path.parent)


def remove_partial_files(folder: Path) -> None:
    """Remove the partial files of killed writers below a folder; no writer may be active there."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)


def remove_partial_files_of(path: Path) -> None:
    """Remove the partial files of killed writers of one file; no writer of it may be active."""
    stem = escape(hidden_neighbour(path, "").name)
    for partial in path.parent.glob(f"{stem}*.partial"):
        partial.unlink(missing_ok=True)


def hidden_neighbour(path: Path, ending: str) -> Path:
    """Return the path of a hidden file beside a file, for temporary data that belongs to it.

    Args:
        path: The file.
        ending: End of the name, up to 110 bytes.

    Returns:
        ``.NAME.ENDING``. If that could be longer than file systems allow, a digest replaces the
        name.
    """
    name = path.name
    if len(os.fsencode(name)) + _LONGEST_ENDING + 2 > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{ending}")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically."""
    with write_atomically(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def file_sha256(path: Path, progress: Callable[[int], None] = lambda size: None) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: The file.
        progress: Called with the number of bytes read since the last call.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with open_regular(path) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            progress(size)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value, from which digests are computed.

    File names that are not valid UTF-8 keep their bytes.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode(errors="surrogateescape")


def sync_file(descriptor: int) -> None:
    """Wait until an open file is on the disk, if its file system supports that.

    Args:
        descriptor: Descriptor of the file, open for writing; some systems require that.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_path(path: Path) -> None:
    """Wait until a file is on the disk; see :func:`sync_file`."""
    with path.open("r+b") as file:
        sync_file(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, if its file system supports that.

    Old CIFS, drvfs and many FUSE file systems cannot sync folders. There, the file system decides
    when names reach the disk.

    Raises:
        OSError: The folder is missing, or the disk is full or broken.
    """
    if os.name == "nt":  # Windows cannot open a folder for fsync
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise


def sync_tree(folder: Path) -> None:
    """Wait until all files below a folder, and their names, are on the disk.

    Raises:
        OSError: As for :func:`sync_file` and :func:`sync_folder`.
    """
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path)
        else:
            sync_path(path)
    sync_folder(folder)


def writer_name() -> str:
    """Return a name that no other writer of the same file has, on this host or another.

    It is ``HOST-THREAD-PROCESS``.
    """
    host = socket.gethostname()
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", host):
        host = hashlib.sha256(os.fsencode(host)).hexdigest()[:16]
    return f"{host}-{threading.get_native_id()}-{os.getpid()}"


def partial_file(path: Path) -> Path:
    """Return the path of this writer's temporary file, which will be renamed to ``path``."""
    return hidden_neighbour(path, f"{writer_name()}.partial")
