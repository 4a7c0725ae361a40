"""Fetching a range of a remote file; an interrupted transfer resumes where it stopped."""

import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.utils import get_protocol

from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.shards.addresses import (
    CHUNK,
    WEB_PROTOCOLS,
    BrokenTransferError,
    Tries,
    below,
    explained,
    is_remote,
    longer,
    place_of,
    stream,
)

ATTEMPTS = 7
"""Failures in a row, without a byte in between, after which a transfer is given up."""

_LARGEST_REQUEST = 1 << 24  # bytes; such a request is held in memory, and repeated whole


class NoRangesError(ShardError):
    """A server sends whole files only."""


def fetch_range(
    write: Callable[[bytes], object], address: str, path: str, start: int, stop: int, size: int
) -> None:
    """Fetch bytes of a file.

    Args:
        write: Called with each part, in order; what it raises ends the transfer.
        address: URL or path of a folder.
        path: The file's path in the folder.
        start: First byte.
        stop: End of the bytes.
        size: Size of the file in bytes.

    Raises:
        NoRangesError: The server sends whole files only, and this is not one.
        BrokenTransferError: The transfer was interrupted :data:`ATTEMPTS` times.
        ShardError: The file does not exist, may not be read, or has another size.
    """
    tries = Tries(address, ATTEMPTS)
    done = start
    is_whole = start == 0 and stop == size
    while done < stop:
        before = done
        try:
            for part in _parts(address, path, done, stop, size, is_whole=is_whole):
                write(part)
                done += len(part)
            if done < stop:
                raise BrokenTransferError(
                    f"{masked(below(address, path))} ended after {done} of the {size} bytes that "
                    "the manifest gives"
                )
        except BrokenTransferError as error:
            if done > before:
                tries.progressed()
            tries.failed(error)


def _parts(
    address: str, path: str, start: int, stop: int, size: int, *, is_whole: bool
) -> Iterator[bytes]:
    in_one_go = not is_remote(address) or (start == 0 and size > _LARGEST_REQUEST)
    if is_whole and in_one_go:
        yield from _after(start, stream(address, path, size))
        return
    if get_protocol(address) in WEB_PROTOCOLS:
        yield from _web_parts(address, path, start, stop, size, is_whole=is_whole)
        return
    filesystem, place = place_of(address, path)
    for first in range(start, stop, _LARGEST_REQUEST):
        last = min(first + _LARGEST_REQUEST, stop)
        with explained(address, path):
            part = _read_part(filesystem, place, first, last)
        yield part[: last - first]
        if len(part) < last - first:
            return


def _read_part(filesystem: Any, place: str, start: int, stop: int) -> bytes:
    if isinstance(filesystem, AsyncFileSystem):
        return cast(bytes, filesystem.cat_file(place, start=start, end=stop))
    with filesystem.open(place, "rb", cache_type="none") as file:  # others would read ahead
        file.seek(start)
        return cast(bytes, file.read(stop - start))


def _web_parts(
    address: str, path: str, start: int, stop: int, size: int, *, is_whole: bool
) -> Iterator[bytes]:
    if is_whole and start == 0:  # a plain request, which every server answers
        yield from stream(address, path, size)
        return
    filesystem, place = place_of(address, path)
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    left = stop - start
    with (
        explained(address, path),
        # block_size 0: one request, whose body is read as it arrives
        filesystem.open(place, "rb", block_size=0, size=left, headers=headers) as file,
    ):
        ignored = _ignored(file.r, address, path, start, size)
        if ignored and not is_whole:
            raise NoRangesError(f"{masked(below(address, path))} cannot be read in parts")
        for part in _after(start if ignored else 0, _chunks(file)):
            left -= len(part)
            if left < 0:
                raise longer(address, path, size)
            yield part


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := cast(bytes, sync(file.loop, _gathered, file.r.content)):
        yield chunk


async def _gathered(content: Any) -> bytes:
    """Return the next bytes of a body, at least a chunk; waking this thread for each costs more."""
    parts: list[bytes] = []
    try:
        while sum(map(len, parts)) < CHUNK and (part := await content.readany()):
            parts.append(part)
    except Exception:  # what has arrived counts; the next call raises it again
        if not parts:
            raise
    return b"".join(parts)


def _after(start: int, parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what follows the first ``start`` bytes."""
    for part in parts:
        if start < len(part):
            yield part[start:]
        start = max(0, start - len(part))


def _ignored(response: Any, address: str, path: str, start: int, size: int) -> bool:
    """Return whether a server answered a request of a range with the whole file.

    Raises:
        ShardError: The answer shows that the file has another size, or is of other bytes.
    """
    if response.status != 206:
        return True
    found = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    where = masked(below(address, path))
    if found is None or int(found[1]) != start:
        raise BrokenTransferError(f"{where} was answered with other bytes than those asked for")
    if found[2] not in ("*", str(size)):
        raise ShardError(
            f"{where} has {found[2]} bytes, the manifest says {size}: it was altered there"
        )
    return False
