"""Reading files in a tar in place: nothing is unpacked, and no name can lead outside."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from iirc_data.errors import SourceError
from iirc_data.reading import open_regular
from iirc_data.sources.base import Sample, cannot_read, file_stamp, split_file_name

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20  # a header with a long name is much smaller
_LARGEST_UNPACKED = 1 << 30  # CIFAR has 0.19 GB
_BROKEN_TAR = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, zlib.error)

_MEMBER_TYPES = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class TarMember(NamedTuple):
    """A file in a tar.

    Attributes:
        name: Path in the tar, without a leading ``./``.
        offset: Offset of the content from the start of the file, in bytes.
        size: Size of the content in bytes.
    """

    name: str
    offset: int
    size: int


def list_members(path: Path, start: int = 0, size: int | None = None) -> list[TarMember]:
    """List the files of an uncompressed tar by reading only its headers.

    Args:
        path: The tar, or a file that contains one.
        start: Offset of the tar in the file, in bytes.
        size: Size of the tar in bytes; by default up to the end of the file.

    Returns:
        The files in the order of the tar, without folders.

    Raises:
        SourceError: See :func:`list_members_and_folders`.
    """
    return list_members_and_folders(path, start, size)[0]


def list_members_and_folders(
    path: Path, start: int = 0, size: int | None = None
) -> tuple[list[TarMember], list[str]]:
    """List the files of an uncompressed tar, and the names of the folders that it names.

    Args:
        path: See :func:`list_members`.
        start: See :func:`list_members`.
        size: See :func:`list_members`.

    Raises:
        SourceError: The tar is missing, compressed, damaged or truncated; data follows its end;
            or a member is not a regular file, or has a name that leads outside.
    """
    end = start + size if size is not None else file_stamp(path)[0]
    members, folders = [], []
    try:
        with _BoundedReader(open_regular(path)) as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    name = _checked_name(path, info)
                    if info.isdir():
                        folders.append(name)
                        continue
                    if info.offset_data + info.size > end:
                        raise SourceError(f"{path} is truncated within {info.name!r}: {_REMEDY}")
                    members.append(TarMember(name, info.offset_data, info.size))
                last = archive.offset
            file.seek(last)
            _check_end(path, file, end)
    except OSError as error:
        raise cannot_read(path, error) from error
    except SourceError:
        raise
    except _BROKEN_TAR as error:
        raise SourceError(f"{path} is not a readable, uncompressed tar: {error}") from error
    return members, folders


def read_images(path: Path, members: Iterable[TarMember]) -> Iterator[Sample]:
    """Read images from an uncompressed tar.

    Raises:
        SourceError: The tar cannot be read, or a member does not have the name of an image.
    """
    try:
        with io.BufferedReader(open_regular(path)) as file:
            for member in members:
                origin = f"{path}:{member.name}"
                key, extension = split_file_name(PurePosixPath(member.name).name, origin)
                file.seek(member.offset)
                data = file.read(member.size)
                if len(data) != member.size:
                    raise SourceError(f"{origin} is truncated: {_REMEDY}")
                yield Sample(key, extension, data, origin)
    except OSError as error:
        raise cannot_read(path, error) from error


def read_compressed(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Read some files of a ``.tar.gz``, or of the same tar unpacked, into memory.

    Args:
        path: The tar.
        wanted: Names of the members.

    Returns:
        Member name to content.

    Raises:
        SourceError: The tar cannot be read, expands to more than 1 GiB, or lacks a member; the
            message names the member.
    """
    found: dict[str, bytes] = {}
    try:
        with (
            _open_unpacked(path) as file,
            tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            for info in archive:
                name = _checked_name(path, info)
                content = archive.extractfile(info) if name in wanted else None
                if content is not None:
                    found[name] = b"".join(iter(partial(content.read, _CHUNK), b""))
                if len(found) == len(wanted):
                    break
    except SourceError:
        raise
    except _BROKEN_TAR as error:
        raise SourceError(f"{path} is damaged or not a tar: {error}; {_REMEDY}") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    if missing := sorted(set(wanted) - set(found)):
        raise SourceError(f"{path} lacks {', '.join(missing)}: {_REMEDY}")
    return found


class _BoundedReader(io.BufferedReader):
    """Bounds the size of reads and of the file, whatever sizes the headers of a tar contain.

    Args:
        raw: The uncompressed tar.
        limit: Largest size of the tar in bytes.
    """

    def __init__(self, raw: Any, limit: int | None = None) -> None:
        super().__init__(raw)
        self._limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _CHUNK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)

    def seek(self, target: int, whence: int = 0, /) -> int:
        if self._limit is not None and target > self._limit:
            raise tarfile.ReadError(f"more than {self._limit:,} bytes when unpacked")
        return super().seek(target, whence)


def _check_end(path: Path, file: _BoundedReader, end: int) -> None:
    """Check that a tar ends where ``tarfile`` stopped: all following bytes are zero.

    ``tarfile`` treats a damaged header and a missing end as the end of the archive, and ignores
    everything behind it, for example another tar.

    Raises:
        SourceError: A following byte is not zero.
    """
    last = file.tell()
    if end - last < tarfile.BLOCKSIZE or any(file.read(tarfile.BLOCKSIZE)):
        raise SourceError(f"{path} is damaged or truncated at byte {last:,}: {_REMEDY}")
    while chunk := file.read(min(_CHUNK, end - file.tell())):
        if data := chunk.lstrip(b"\0"):
            raise SourceError(
                f"{path} has data after the tar's end, at byte {file.tell() - len(data):,}: if it "
                "is several tars in one, unpack them with 'tar --ignore-zeros -xf' and give the "
                "folder; otherwise copy it again"
            )


def _open_unpacked(path: Path) -> _BoundedReader:
    with open_regular(path) as file:
        is_packed = file.read(len(_GZIP)) == _GZIP
    return _BoundedReader(
        gzip.GzipFile(path) if is_packed else path.open("rb", buffering=0), _LARGEST_UNPACKED
    )


def _checked_name(path: Path, info: tarfile.TarInfo) -> str:
    if info.size < 0:  # tarfile would go back and loop forever
        raise tarfile.ReadError(f"member {info.name!r} has {info.size} bytes")
    parts = PurePosixPath(info.name).parts
    if info.name.startswith("/") or ".." in parts:
        raise SourceError(f"{path} contains {info.name!r}, a name that leads outside: {_DISTRUST}")
    if not (info.isreg() or info.isdir()) or info.issparse():
        kind = _MEMBER_TYPES.get(info.type, "a special file")
        raise SourceError(f"{path} contains {info.name!r}, which is {kind}: {_DISTRUST}")
    return "/".join(part for part in parts if part != ".")


_REMEDY = "copy or download it again"
_DISTRUST = "do not trust this tar; make one of regular files"
