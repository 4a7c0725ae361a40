"""Fetching a range of a remote file; an interrupted transfer resumes where it stopped."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeVar, cast

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.utils import get_protocol

from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.shards import addresses
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
from iirc_data.shards.direct import Direct
from iirc_data.shards.web import Answer

Part = TypeVar("Part", bytes, memoryview)

ATTEMPTS = 7
"""Failures in a row, without a byte in between, after which a transfer is given up."""

_LARGEST_REQUEST = 1 << 24  # bytes; such a request is held in memory, and repeated whole


class NoRangesError(ShardError):
    """A server sends whole files only."""


def fetch_range(
    write: Callable[[bytes | memoryview], object],
    address: str,
    path: str,
    start: int,
    stop: int,
    size: int,
    *,
    direct: Direct | None = None,
    began: Callable[[], object] = lambda: None,
) -> None:
    """Fetch bytes of a file.

    Args:
        write: Called with each part, in order; the part is overwritten when it returns. What it
            raises ends the transfer.
        address: URL or path of a folder.
        path: The file's path in the folder.
        start: First byte.
        stop: End of the bytes.
        size: Size of the file in bytes.
        direct: Reads the file if it may; otherwise fsspec does.
        began: Called when the server begins to answer, if that is known.

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
            asked = _Asked(address, path, done, stop, size, is_whole)
            for part in _parts(asked, direct, began):
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


class _Asked(NamedTuple):
    """The bytes to fetch: up to the end of the file if all of it is wanted."""

    address: str
    path: str
    start: int
    stop: int
    size: int
    is_whole: bool

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the request."""
        headers = {"Accept-Encoding": "identity"}
        if not self.is_plain:
            headers["Range"] = f"bytes={self.start}-{self.stop - 1}"
        return headers

    @property
    def is_plain(self) -> bool:
        """Whether a plain request serves, which every server answers."""
        return self.is_whole and self.start == 0


def _parts(
    asked: _Asked, direct: Direct | None, began: Callable[[], object]
) -> Iterator[bytes | memoryview]:
    address, path, start, stop = asked[:4]
    if is_remote(address) and direct is not None:
        filesystem, place = place_of(address, path)
        if (url := direct.url(address, filesystem, place)) is not None:
            try:
                yield from _direct_parts(asked, direct, url, began)
                return
            except _NotDirectError:
                pass
    in_one_go = not is_remote(address) or (start == 0 and asked.size > _LARGEST_REQUEST)
    if asked.is_whole and in_one_go:
        yield from _after(start, stream(address, path, asked.size))
        return
    if get_protocol(address) in WEB_PROTOCOLS:
        yield from _web_parts(asked)
        return
    filesystem, place = place_of(address, path)
    for first in range(start, stop, _LARGEST_REQUEST):
        last = min(first + _LARGEST_REQUEST, stop)
        with explained(address, path):
            part = _read_part(filesystem, place, first, last)
        yield part[: last - first]
        if len(part) < last - first:
            return


class _NotDirectError(ShardError):
    """The package's own client cannot read a file; fsspec may."""


def _direct_parts(
    asked: _Asked, direct: Direct, url: str, began: Callable[[], object]
) -> Iterator[memoryview]:
    with ExitStack() as stack, explained(asked.address, asked.path):
        try:
            answer = stack.enter_context(direct.client.get(url, asked.headers))
        except OSError as error:
            if direct.is_to_blame(asked.address, error):
                raise _NotDirectError from error
            raise
        direct.worked()
        began()
        yield from _checked(asked, answer, _read_parts(answer, asked.stop - asked.start))


def _read_parts(answer: Answer, most: int) -> Iterator[memoryview]:
    """Yield the parts of an answer, each in the memory of the one before."""
    buffer = memoryview(bytearray(min(addresses.CHUNK, max(1, most))))
    while size := answer.read_into(buffer):
        yield buffer[:size]


def _read_part(filesystem: Any, place: str, start: int, stop: int) -> bytes:
    if isinstance(filesystem, AsyncFileSystem):
        return cast(bytes, filesystem.cat_file(place, start=start, end=stop))
    with filesystem.open(place, "rb", cache_type="none") as file:  # others would read ahead
        file.seek(start)
        return cast(bytes, file.read(stop - start))


def _web_parts(asked: _Asked) -> Iterator[bytes]:
    address, path, start, stop = asked[:4]
    if asked.is_plain:
        yield from stream(address, path, asked.size)
        return
    filesystem, place = place_of(address, path)
    options = {"size": stop - start, "headers": asked.headers}
    with (
        explained(address, path),
        # block_size 0: one request, whose body is read as it arrives
        filesystem.open(place, "rb", block_size=0, **options) as file,
    ):
        yield from _checked(asked, file.r, _chunks(file))


def _checked(asked: _Asked, answer: Any, parts: Iterator[Part]) -> Iterator[Part]:
    """Yield the bytes asked for out of an answer, which may be the whole file."""
    ignored = asked.is_plain or _ignored(answer, *asked[:3], asked.size)
    if ignored and not asked.is_whole:
        raise NoRangesError(f"{masked(below(asked.address, asked.path))} cannot be read in parts")
    left = asked.stop - asked.start
    for part in _after(asked.start if ignored else 0, parts):
        left -= len(part)
        if left < 0:
            raise longer(asked.address, asked.path, asked.size)
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


def _after(start: int, parts: Iterator[Part]) -> Iterator[Part]:
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
