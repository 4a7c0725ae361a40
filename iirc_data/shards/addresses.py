"""Addresses of datasets, local and remote, and reading the files there."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import punctuation
from typing import Any, TypeVar
from urllib.parse import quote

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.reading import open_regular

WEB_PROTOCOLS = ("http", "https")

_PIN = "@sha256:"
_CHUNK = 1 << 20
_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 1.0
_REFUSALS = frozenset(range(400, 500)) - {408, 429}  # these two ask the client to try again

T = TypeVar("T")


class BrokenTransferError(ShardError):
    """A transfer was interrupted; trying again may help."""


def is_remote(address: PathLike) -> bool:
    """Return whether an address is a URL that does not denote a local path."""
    return local_path(address) is None


def local_path(address: PathLike) -> Path | None:
    """Return the local path that an address denotes, or None if it is remote.

    Raises:
        ShardError: See :func:`split_pin`.
    """
    place, _ = split_pin(address)
    if isinstance(address, Path) or ("://" not in place and "::" not in place):
        return Path(place)
    if get_protocol(place) in LocalFileSystem.protocol:
        return Path(LocalFileSystem._strip_protocol(place))
    return None


def split_pin(address: PathLike) -> tuple[str, str | None]:
    """Split ``ADDRESS@sha256:DIGEST`` into the address and the digest, None if there is none.

    Raises:
        ShardError: What follows ``@sha256:`` is not a digest.
    """
    place, mark, digest = str(address).rpartition(_PIN)
    if not mark:
        return str(address), None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest) or not place:
        raise ShardError(
            f"{masked(str(address))} does not pin a digest: expected ADDRESS@sha256: and the 64 "
            "hexadecimal digits that iirc data info prints"
        )
    return place, digest.lower()


def pinned(address: str, digest: str) -> str:
    """Return an address that pins a digest."""
    return f"{address}{_PIN}{digest}"


def filesystem_at(address: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address and the path in it.

    Raises:
        ShardError: fsspec does not know the protocol, or its package is not installed.
    """
    options: dict[str, Any] = {}
    try:
        if get_protocol(address) in WEB_PROTOCOLS:
            from aiohttp import ClientTimeout

            # the default timeout, five minutes in total, is too short for large shards
            timeout = ClientTimeout(total=None, sock_connect=30, sock_read=60)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
            options["encoded"] = "?" in address  # a signature covers the exact characters
        filesystem, path = url_to_fs(address, **options)
    except ImportError as error:
        raise ShardError(
            f"reading {masked(address)} needs a package that is not installed: pip install "
            f"'iirc-pipeline[remote]' for http, or the package of its protocol ({error})"
        ) from error
    except ValueError as error:
        raise ShardError(
            f"{masked(address)} is not an address that fsspec supports: {masked(str(error))}"
        ) from error
    return filesystem, path if _is_web(path) else path.rstrip("/")


def below(address: str, path: str) -> str:
    """Return the address of a file in the folder at an address.

    The query of a web address, which may sign the request, stays at the end.
    """
    if not _is_web(address):
        return f"{address.rstrip('/')}/{path}"
    folder, mark, query = address.partition("?")
    return f"{folder.rstrip('/')}/{path}{mark}{query}"


def _is_web(address: str) -> bool:
    return address.lower().startswith(tuple(f"{protocol}://" for protocol in WEB_PROTOCOLS))


def _cause(error: Exception, address: str) -> Exception | None:
    """Return the cause to chain, or None if its text could reveal a signature or a login."""
    return error if masked(address) == address else None


def read_whole(address: str, path: str, limit: int) -> bytes:
    """Return the content of a file of at most ``limit`` bytes; see :func:`stream`."""
    return with_attempts(address, lambda: b"".join(stream(address, path, limit)))


def stream(address: str, path: str, limit: int) -> Iterator[bytes]:
    """Yield a file chunk by chunk, never more than ``limit`` bytes.

    Args:
        address: URL or path of a folder.
        path: The file's path in the folder.
        limit: Largest size of the file in bytes.

    Raises:
        BrokenTransferError: Reading was interrupted, or the server asks to try again later.
        ShardError: The file does not exist, may not be read, or is larger than ``limit``.
    """
    where = masked(below(address, path))
    filesystem, root = filesystem_at(address)
    left = limit
    options: dict[str, Any] = {}
    if get_protocol(address) in WEB_PROTOCOLS:
        options = {"block_size": 0, "size": limit}  # one plain request, no HEAD, no ranges
    file_path = below(root, path)
    if _is_web(root):
        file_path = quote(below(root, quote(path)), safe=punctuation)
    try:
        if is_remote(address):
            opened = filesystem.open(file_path, "rb", **options)
        else:
            opened = open_regular(file_path)
        with opened as file:
            while chunk := file.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
    except FileNotFoundError as error:
        raise ShardError(
            f"{where} does not exist: the address is wrong, or the dataset there is not finished"
        ) from _cause(error, address)
    except Exception as error:  # each filesystem raises its own types
        refused = isinstance(error, PermissionError) or getattr(error, "status", 0) in _REFUSALS
        kind = ShardError if refused else BrokenTransferError
        raise kind(
            f"cannot read {where}: {type(error).__name__}: {masked(str(error))}"
        ) from _cause(error, address)
    if left < 0:
        raise ShardError(f"{where} is longer than the expected {limit} bytes: it was altered there")


def with_attempts(address: str, transfer: Callable[[], T]) -> T:
    """Run a transfer; retry an interrupted transfer from a remote address up to twice."""
    for attempt in range(1, _ATTEMPTS if is_remote(address) else 1):
        try:
            return transfer()
        except BrokenTransferError:
            time.sleep(attempt * _SECONDS_BETWEEN_ATTEMPTS)
    return transfer()
