"""Addresses of datasets, local and remote, and reading the files there."""

import errno
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from string import punctuation
from typing import Any
from urllib.parse import quote

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.reading import open_regular

WEB_PROTOCOLS = ("http", "https")

CHUNK = 1 << 20
"""Largest number of bytes that are read at a time."""

_PIN = "@sha256:"

SECONDS_OF_SILENCE = 60.0
"""How long a web server may send nothing before a transfer counts as interrupted."""

_SECONDS_BETWEEN_ATTEMPTS = 1.0  # at first; it doubles with each failure
_LONGEST_WAIT = 30.0  # seconds
_LONGEST_ASKED = 300.0  # seconds, if the server says how long
_REFUSALS = frozenset(range(400, 500)) - {408, 429}  # these two ask the client to try again
_NO_LOGIN = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "DefaultCredentialsError",
        "LocalTokenNotFoundError",
    }
)
_EXTRAS = {"http": "remote", "https": "remote", "s3": "s3", "gs": "gs", "hf": "hf"}


class BrokenTransferError(ShardError):
    """A transfer was interrupted; trying again may help.

    Attributes:
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


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
            "hexadecimal digits of the digest that iirc data info prints, or iirc features publish"
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
            timeout = ClientTimeout(total=None, sock_connect=30, sock_read=SECONDS_OF_SILENCE)
            options["client_kwargs"] = {
                "timeout": timeout,
                "trust_env": True,
                "read_bufsize": CHUNK,
            }
            options["encoded"] = "?" in address  # a signature covers the exact characters
        filesystem, path = url_to_fs(address, **options)
    except ImportError as error:
        extra = _EXTRAS.get(get_protocol(address))
        remedy = f"'iirc-pipeline[{extra}]'" if extra else "the package of its protocol"
        raise ShardError(
            f"reading {masked(address)} needs a package that is not installed: pip install "
            f"{remedy} ({error})"
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
    tries = Tries(address)
    while True:
        try:
            return b"".join(stream(address, path, limit))
        except BrokenTransferError as error:
            tries.failed(error)


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
    filesystem, file_path = place_of(address, path)
    left = limit
    options: dict[str, Any] = {}
    if get_protocol(address) in WEB_PROTOCOLS:
        options = {"block_size": 0, "size": limit}  # one plain request, no HEAD, no ranges
    with explained(address, path):
        if is_remote(address):
            opened = filesystem.open(file_path, "rb", **options)
        else:
            opened = open_regular(file_path)
        with opened as file:
            while chunk := file.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
    if left < 0:
        raise longer(address, path, limit)


def place_of(address: str, path: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address and the place of a file below it.

    Raises:
        ShardError: See :func:`filesystem_at`.
    """
    filesystem, root = filesystem_at(address)
    if _is_web(root):
        return filesystem, quote(below(root, quote(path)), safe=punctuation)
    return filesystem, below(root, path)


@contextmanager
def explained(address: str, path: str) -> Iterator[None]:
    """Raise what goes wrong while a file is read as a ShardError with its address and cause.

    Raises:
        BrokenTransferError: Trying again may help.
        ShardError: The file does not exist, or may not be read.
    """
    where = masked(below(address, path))
    try:
        yield
    except (ShardError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise ShardError(
            f"{where} does not exist: the address is wrong, or the dataset there is not finished "
            "or a partial copy"
        ) from _cause(error, address)
    except Exception as error:  # each filesystem raises its own types
        text = f"cannot read {where}: {type(error).__name__}: {masked(str(error))}"
        if type(error).__name__ in _NO_LOGIN:
            text += "; log in as the protocol's package documents it, or make the dataset public"
            raise ShardError(text) from _cause(error, address)
        is_refused = isinstance(error, PermissionError) or _status(error) in _REFUSALS
        if is_refused or getattr(error, "errno", None) == errno.EINVAL:  # s3fs: no such range
            raise ShardError(text) from _cause(error, address)
        raise BrokenTransferError(text, _retry_after(error)) from _cause(error, address)


def longer(address: str, path: str, size: int) -> ShardError:
    """Return the error for a file that is longer than it should be."""
    where = masked(below(address, path))
    return ShardError(f"{where} is longer than the expected {size} bytes: it was altered there")


class Tries:
    """Waits between the attempts of one transfer, longer after each, with jitter.

    Args:
        address: Where the transfer is from; what fails at a local address is not repeated.
        attempts: Number of failures in a row after which it is given up.
    """

    def __init__(self, address: str, attempts: int = 3) -> None:
        self._left = attempts if is_remote(address) else 1
        self._attempts = self._left
        self._seconds = _SECONDS_BETWEEN_ATTEMPTS

    def progressed(self) -> None:
        """Start counting again: the last attempt brought something."""
        self._left = self._attempts
        self._seconds = _SECONDS_BETWEEN_ATTEMPTS

    def failed(self, error: "BrokenTransferError") -> None:
        """Wait before the next attempt, at least for as long as the server asks.

        Raises:
            BrokenTransferError: This was the last attempt.
        """
        self._left -= 1
        if self._left <= 0:
            raise error
        asked = min(error.retry_after or 0.0, _LONGEST_ASKED)
        time.sleep(max(asked, self._seconds * random.uniform(0.5, 1.5)))
        self._seconds = min(2 * self._seconds, _LONGEST_WAIT)


def _status(error: Exception) -> int:
    """Return the HTTP status that an exception stands for, or 0."""
    status = getattr(error, "status", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0


def _retry_after(error: Exception) -> float | None:
    """Return the seconds that a server asks to wait, from its header ``Retry-After``."""
    source = getattr(error, "response", error)
    text = (getattr(source, "headers", None) or {}).get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None
