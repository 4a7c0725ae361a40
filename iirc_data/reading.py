"""Reading files that users name: only regular files, and text in any Unicode encoding."""

import codecs
import errno
import io
import os
import stat

from iirc_data.definitions import PathLike

LARGEST_TEXT = 1 << 26
"""Largest size in bytes of a benchmark, a taxonomy, a list of classes or a file of settings."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# UTF-32 first: its little-endian mark starts with the mark of UTF-16
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def kind_of(mode: int) -> str | None:
    """Return what an ``st_mode`` denotes, such as ``"a named pipe"``; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def open_regular(path: PathLike) -> io.FileIO:
    """Open a regular file for reading, unbuffered.

    Opening a pipe waits for a writer and reading a device may never end, so neither is opened.

    Args:
        path: The file; links are followed.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
    """
    if (kind := kind_of(os.stat(path).st_mode)) is not None:  # noqa: PTH116 -- faster
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    return open(path, "rb", buffering=0, opener=_without_waiting)


def read_regular(path: PathLike) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return file.readall()


def read_text(path: PathLike) -> str:
    """Read a text file.

    Args:
        path: UTF-8, or UTF-16 or UTF-32 with a byte order mark. The result has no mark.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is larger than
            :data:`LARGEST_TEXT`.
        UnicodeError: The file is in another encoding.
    """
    with io.BufferedReader(open_regular(path)) as file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST_TEXT >> 20} MiB", str(path))
    marks = (mark for mark in _BYTE_ORDER_MARKS if data.startswith(mark))
    encoding = _BYTE_ORDER_MARKS.get(next(marks, b""), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        raise UnicodeError("not text, or UTF-16 without a byte order mark: save it as UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnicodeError(
            f"not {encoding.removesuffix('-sig').upper()} at byte {error.start:,}: save it as UTF-8"
        ) from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
