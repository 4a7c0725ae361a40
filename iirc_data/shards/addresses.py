"""Addresses: where they lead, and reading the files there."""

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

_CHUNK = 1 << 20
_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 1.0
_REFUSALS = frozenset(range(400, 500)) - {408, 429}  # those two ask for patience

T = TypeVar("T")


class BrokenTransferError(ShardError):
    """A transfer broke off; trying again may help."""


def is_remote(address: PathLike) -> bool:
    """Tell whether an address is a URL that does not name a local path."""
    return local_path(address) is None


def local_path(address: PathLike) -> Path | None:
    """Return the local path that an address names, or None where it is remote."""
    if isinstance(address, Path) or ("://" not in address and "::" not in address):
        return Path(address)
    if get_protocol(address) in LocalFileSystem.protocol:
        return Path(LocalFileSystem._strip_protocol(address))
    return None


def filesystem_at(address: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address and the path in it.

    Raises:
        ShardError: No filesystem is known or installed for this kind of address.
    """
    options: dict[str, Any] = {}
    try:
        if get_protocol(address) in WEB_PROTOCOLS:
            from aiohttp import ClientTimeout

            # the default timeout, five minutes in all, would forbid large shards
            timeout = ClientTimeout(total=None, sock_connect=30, sock_read=60)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
            options["encoded"] = "?" in address  # a signature holds for the very characters
        filesystem, path = url_to_fs(address, **options)
    except ImportError as error:
        raise ShardError(
            f"reading {masked(address)} needs a package that is not installed: pip install "
            f"'iirc-pipeline[remote]' for http, or the package of its protocol ({error})"
        ) from error
    except ValueError as error:
        raise ShardError(
            f"{masked(address)} is no address that fsspec knows: {masked(str(error))}"
        ) from error
    return filesystem, path if _is_web(path) else path.rstrip("/")


def below(address: str, path: str) -> str:
    """Return the address of a file in the folder at an address.

    The query of a web address, with which a request is signed, stays at the end.
    """
    if not _is_web(address):
        return f"{address.rstrip('/')}/{path}"
    folder, mark, query = address.partition("?")
    return f"{folder.rstrip('/')}/{path}{mark}{query}"


def _is_web(address: str) -> bool:
    return address.lower().startswith(tuple(f"{protocol}://" for protocol in WEB_PROTOCOLS))


def _cause(error: Exception, address: str) -> Exception | None:
    """Return the cause to chain, or None where its text shows what signs the address."""
    return error if masked(address) == address else None


def read_whole(address: str, path: str, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes; see :func:`stream`."""
    return with_attempts(address, lambda: b"".join(stream(address, path, limit)))


def stream(address: str, path: str, limit: int) -> Iterator[bytes]:
    """Yield a file chunk by chunk, never more than ``limit`` bytes.

    Args:
        address: URL or path of a folder.
        path: The file's path in it.
        limit: Bytes that the file may have.

    Raises:
        BrokenTransferError: Reading broke off, or the server asks for patience.
        ShardError: There is no such file, it may not be read, or it is longer.
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
    """Carry out a transfer from an address; where it breaks off from afar, try again twice."""
    for attempt in range(1, _ATTEMPTS if is_remote(address) else 1):
        try:
            return transfer()
        except BrokenTransferError:
            time.sleep(attempt * _SECONDS_BETWEEN_ATTEMPTS)
    return transfer()
