"""Reading the columns of an uncompressed ``.npz`` piece by piece, in bounded memory."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

PIECE = 1 << 23
"""Bytes of a column that are read at once."""

_LOCAL_HEADER = 30  # bytes, of which the last four are the lengths of name and extra field
_LONGEST_NPY_HEADER = 1 << 16


@dataclass(frozen=True)
class StoredColumn:
    """One array of an ``.npz``.

    Attributes:
        dtype: Data type of the array.
        shape: Shape of the array.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    _file: BinaryIO
    _start: int

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yield the values of a one-dimensional array in order, piece by piece.

        Raises:
            ValueError: The file ends within the array.
        """
        self._file.seek(self._start)
        (left,) = self.shape
        while left:
            piece = np.empty(min(left, max(1, PIECE // self.dtype.itemsize)), self.dtype)
            if _read_into(self._file, piece.view("u1").data) < piece.nbytes:
                raise ValueError("it ends within a column")
            left -= len(piece)
            yield piece


def stored_columns(file: BinaryIO) -> dict[str, StoredColumn]:
    """Return the arrays of an ``.npz`` by name. No values are read, and checksums are not compared.

    Args:
        file: Must stay open while columns are read.

    Raises:
        ValueError: The file contains compressed or malformed arrays, or arrays of objects.
        Exception: The file is not a ZIP archive; :mod:`zipfile` raises many types.
    """
    with ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        check_uncompressed(archive)
    return {info.filename.removesuffix(".npy"): _column(file, info) for info in members}


def check_uncompressed(archive: ZipFile) -> None:
    """Refuse compressed columns, which could expand without limit; tables are written uncompressed.

    Raises:
        ValueError: A column is compressed.
    """
    for member in archive.infolist():
        if member.compress_type != ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")


def _column(file: BinaryIO, info: ZipInfo) -> StoredColumn:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\3\4") or info.flag_bits & 1:
        raise ValueError(f"{info.filename} is not where the directory of the file says")
    start = info.header_offset + _LOCAL_HEADER
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    file.seek(start)
    head = io.BytesIO(file.read(min(info.file_size, _LONGEST_NPY_HEADER)))
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(head)
    if version not in readers:
        raise ValueError(f"{info.filename} has the unknown version {version}")
    shape, _, dtype = readers[version](head)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} contains Python objects")
    if len(shape) == 1 and head.tell() + shape[0] * dtype.itemsize > info.file_size:
        raise ValueError(f"{info.filename} is shorter than its header says")
    return StoredColumn(dtype, shape, file, start + head.tell())


def _read_into(file: BinaryIO, buffer: memoryview) -> int:
    """Fill a buffer from a file that may return less than asked for; return the bytes read."""
    done = 0
    while done < len(buffer) and (size := file.readinto(buffer[done:])):  # type: ignore[attr-defined]
        done += size
    return done
