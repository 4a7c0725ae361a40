"""Datasets at an address: a file that is fetched gets its name once it is what was promised."""

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

from filelock import FileLock
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.files import file_sha256, write_atomically
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, Shard, load_manifest
from iirc_data.shards.parallel import BytesDone
from iirc_data.shards.table import TABLE_NAME, SampleTable, largest_table_file, load_table

CACHE_VARIABLE = "IIRC_CACHE"
WEB_PROTOCOLS = ("http", "https")

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 1 << 28
_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 1.0
_REFUSALS = frozenset(range(400, 500)) - {408, 429}  # those two ask for patience

T = TypeVar("T")


class _BrokenTransferError(ShardError):
    """A transfer broke off; trying again may help."""


@dataclass(frozen=True)
class RemoteDataset:
    """A finished dataset at any address that fsspec reads; local folders serve too.

    Attributes:
        address: URL or path of the shard folder.
        manifest: What the dataset holds.
        manifest_text: ``manifest.json``, byte for byte.
    """

    address: str
    manifest: Manifest
    manifest_text: bytes

    @classmethod
    def open(cls, address: PathLike) -> Self:
        """Read the manifest at an address.

        Raises:
            ShardError: The address cannot be read, or holds no finished dataset.
        """
        address = str(address).rstrip("/") or "/"
        text = _read(address, MANIFEST_NAME, _LARGEST_MANIFEST)
        return cls(address, load_manifest(text, f"{address}/{MANIFEST_NAME}"), text)

    def read_table(self) -> tuple[SampleTable, bytes]:
        """Read the sample table; return it and its file's bytes.

        Raises:
            ShardError: The table cannot be read or does not fit the manifest.
        """
        text = _read(self.address, TABLE_NAME, largest_table_file(self.manifest))
        return load_table(io.BytesIO(text), self.manifest, f"{self.address}/{TABLE_NAME}"), text

    def fetch(
        self,
        shard: Shard,
        folder: Path,
        progress: BytesDone = lambda size: None,
        *,
        recheck: bool = False,
    ) -> None:
        """Bring a shard into a folder, unless it is there.

        Threads and processes may ask for the same shard: one fetches it, the others wait.

        Args:
            shard: One of the manifest's shards.
            folder: Shard folder to put it into.
            progress: Told of the bytes that were fetched or checked.
            recheck: Compare the digest of a file that is there; otherwise its size will do, for
                files get their name after their digest was checked.

        Raises:
            ShardError: The shard cannot be read or written, or is not what the manifest promises.
        """
        target = folder / shard.path
        if not recheck and has_size(target, shard.bytes):
            return
        with _sole_writer(target):
            if has_size(target, shard.bytes):
                if not recheck or file_sha256(target, progress) == shard.sha256:
                    return
                progress(-shard.bytes)
            _with_attempts(self.address, lambda: self._download(shard, target, progress))

    def save_description(self, folder: Path, table_text: bytes) -> None:
        """Write the sample table, then the manifest, into a folder, byte for byte.

        Raises:
            ShardError: They cannot be written.
        """
        for name, text in ((TABLE_NAME, table_text), (MANIFEST_NAME, self.manifest_text)):
            with _sole_writer(folder / name), write_atomically(folder / name) as file:
                file.write(text)

    def cached_table(self, folder: Path) -> SampleTable:
        """Load the sample table from the folder that caches this dataset, fetched if need be.

        Raises:
            ShardError: The table is not there and cannot be fetched.
        """
        try:
            return load_table(folder / TABLE_NAME, self.manifest, str(folder / TABLE_NAME))
        except ShardError:
            table, text = self.read_table()
            self.save_description(folder, text)
            return table

    def _download(self, shard: Shard, target: Path, progress: BytesDone) -> None:
        where = f"{self.address}/{shard.path}"
        digest = hashlib.sha256()
        done = 0
        try:
            with write_atomically(target) as file:
                for chunk in _stream(self.address, shard.path, shard.bytes):
                    digest.update(chunk)
                    file.write(chunk)
                    done += len(chunk)
                    progress(len(chunk))
                if done < shard.bytes:
                    raise _BrokenTransferError(
                        f"{where} ended after {done} of the {shard.bytes} bytes that its manifest "
                        "promises"
                    )
                if digest.hexdigest() != shard.sha256:
                    raise ShardError(
                        f"{where} does not have the digest that its manifest gives: it was "
                        "damaged or altered there"
                    )
        except BaseException:
            progress(-done)
            raise


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
        filesystem, path = url_to_fs(address, **options)
    except ImportError as error:
        raise ShardError(
            f"reading {address} needs a package that is not installed: pip install "
            f"'iirc-pipeline[remote]' for http, or the package of its protocol ({error})"
        ) from error
    except ValueError as error:
        raise ShardError(f"{address} is no address that fsspec knows: {error}") from error
    return filesystem, path.rstrip("/")


def cache_folder(manifest_text: bytes, cache: PathLike | None = None) -> Path:
    """Return the folder that a remote dataset's files are kept in.

    Args:
        manifest_text: The dataset's ``manifest.json``; its digest names the folder.
        cache: Folder of all such folders; by default the environment variable ``IIRC_CACHE``,
            or ``~/.cache/iirc``.
    """
    base = cache or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "iirc"
    return Path(base) / hashlib.sha256(manifest_text).hexdigest()


def has_size(path: Path, size: int) -> bool:
    """Tell whether a path is a file of this size."""
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def _read(address: str, path: str, limit: int) -> bytes:
    return _with_attempts(address, lambda: b"".join(_stream(address, path, limit)))


def _stream(address: str, path: str, limit: int) -> Iterator[bytes]:
    """Yield a file chunk by chunk, never more than ``limit`` bytes."""
    where = f"{address}/{path}"
    filesystem, root = filesystem_at(address)
    left = limit
    options: dict[str, Any] = {}
    if get_protocol(address) in WEB_PROTOCOLS:
        path = quote(path)
        options = {"block_size": 0, "size": limit}  # one plain request, no HEAD, no ranges
    try:
        with filesystem.open(f"{root}/{path}", "rb", **options) as file:
            while chunk := file.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
    except FileNotFoundError as error:
        hint = ": no finished dataset is there" if path == MANIFEST_NAME else ""
        raise ShardError(f"{where} does not exist{hint}") from error
    except Exception as error:  # each filesystem raises its own types
        refused = isinstance(error, PermissionError) or getattr(error, "status", 0) in _REFUSALS
        kind = ShardError if refused else _BrokenTransferError
        raise kind(f"cannot read {where}: {type(error).__name__}: {error}") from error
    if left < 0:
        raise ShardError(f"{where} is longer than the expected {limit} bytes: it was altered there")


def _with_attempts(address: str, transfer: Callable[[], T]) -> T:
    for attempt in range(1, _ATTEMPTS if is_remote(address) else 1):
        try:
            return transfer()
        except _BrokenTransferError:
            time.sleep(attempt * _SECONDS_BETWEEN_ATTEMPTS)
    return transfer()


@contextmanager
def _sole_writer(target: Path) -> Iterator[None]:
    """Wait until no other thread or process writes a file; clear what killed ones left of it."""
    lock = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            for path in target.parent.glob(f".{escape(target.name)}.*.partial"):
                path.unlink(missing_ok=True)
            yield
            lock.unlink(missing_ok=True)  # who waits for it finds the file in place
    except OSError as error:
        raise ShardError(f"cannot write {target}: {error.strerror or error}") from error
