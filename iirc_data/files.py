"""Writing files so that a final name only ever holds a complete file."""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_CHUNK = 1 << 22


@contextmanager
def write_atomically(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of ``path``; on success fsync it and rename it into place.

    On any exception the temporary file is removed and ``path`` is left as it was.

    Args:
        path: Final name; its folder is made if missing.
        durable: Wait until file and name are on the disk, so that they outlive a power cut.

    Yields:
        The binary file to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}-{os.getpid()}"  # other hosts may write on the same disk
    temporary = path.with_name(f".{path.name}.{writer}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writers left in a folder and below; no writer may be at work there."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Wait until all files of a folder and below, and their names, are on the disk."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically."""
    with write_atomically(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def file_sha256(path: Path, progress: Callable[[int], None] = lambda size: None) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: The file.
        progress: Told of the bytes that were read since it was last called.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            progress(size)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the one JSON spelling of ``value`` that digests are taken of.

    Bytes of file names that are not UTF-8 stay as they are.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode(errors="surrogateescape")


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows cannot open a folder for fsync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
