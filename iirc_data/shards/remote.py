"""Datasets at an address; a fetched file gets its final name after its digest was checked."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from iirc_data.definitions import PathLike
from iirc_data.errors import InUseError, ShardError
from iirc_data.files import file_sha256, remove_partial_files_of, write_atomically
from iirc_data.locks import sole_writer_of
from iirc_data.masking import masked
from iirc_data.shards.addresses import (
    BrokenTransferError,
    below,
    read_whole,
    split_pin,
    stream,
    with_attempts,
)
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, Shard, load_manifest
from iirc_data.shards.parallel import BytesDone
from iirc_data.shards.pixel_digest import check_pixels
from iirc_data.shards.table import TABLE_NAME, SampleTable, largest_table_file, load_table
from iirc_data.shards.versions import version_file

CACHE_VARIABLE = "IIRC_CACHE"

_LARGEST_MANIFEST = 1 << 28


@dataclass(frozen=True)
class RemoteDataset:
    """A finished dataset at any address that fsspec reads, or in a local folder.

    Attributes:
        address: URL or path of the shard folder.
        manifest: The dataset's manifest.
        manifest_text: Content of ``manifest.json``, byte for byte.
        table_name: Path of the sample table at the address.
    """

    address: str
    manifest: Manifest
    manifest_text: bytes
    table_name: str = TABLE_NAME

    @classmethod
    def open(cls, address: PathLike) -> Self:
        """Read the manifest at an address.

        Args:
            address: URL or path of a shard folder; ``ADDRESS@sha256:DIGEST`` pins the digest of
                the dataset, and finds earlier versions of it.

        Raises:
            ShardError: The address cannot be read, there is no finished dataset, or none with the
                pinned digest.
        """
        address, digest = split_pin(address)
        if digest is None:
            return cls._described_by(address, MANIFEST_NAME, TABLE_NAME)
        try:
            current = cls._described_by(address, MANIFEST_NAME, TABLE_NAME)
            if current.manifest.digest == digest:
                return current
            problem = f"{masked(address)} has the digest {current.manifest.digest}"
        except ShardError as error:  # while a new version is published
            problem = str(error)
        names = version_file(digest, "json"), version_file(digest, "npz")
        try:
            earlier = cls._described_by(address, *names)
        except ShardError as error:
            raise ShardError(
                f"{problem}, and no version there has the pinned digest {digest} ({error}): "
                "compare iirc data info ADDRESS with the digest that you were given"
            ) from error
        if earlier.manifest.digest != digest:
            raise ShardError(
                f"{masked(below(address, names[0]))} has another digest: it was altered"
            )
        return earlier

    @classmethod
    def _described_by(cls, address: str, manifest_name: str, table_name: str) -> Self:
        text = read_whole(address, manifest_name, _LARGEST_MANIFEST)
        manifest = load_manifest(text, masked(below(address, manifest_name)))
        return cls(address, manifest, text, table_name)

    def read_table(self) -> tuple[SampleTable, bytes]:
        """Read the sample table; return it and its file's bytes.

        Raises:
            ShardError: The table cannot be read or does not match the manifest.
        """
        try:
            return self._read_table(self.table_name)
        except ShardError as error:
            own_name = version_file(self.manifest.digest, "npz")
            if own_name == self.table_name:
                raise
            with suppress(ShardError):  # another version has just been published
                return self._read_table(own_name)
            raise error

    def _read_table(self, name: str) -> tuple[SampleTable, bytes]:
        text = read_whole(self.address, name, largest_table_file(self.manifest))
        return load_table(io.BytesIO(text), self.manifest, masked(below(self.address, name))), text

    def fetch(
        self,
        shard: Shard,
        folder: Path,
        progress: BytesDone = lambda size: None,
        *,
        recheck: bool = False,
    ) -> None:
        """Copy a shard into a folder, unless it is already there.

        Threads and processes may request the same shard: one fetches it, the others wait.

        Args:
            shard: One of the manifest's shards.
            folder: Shard folder to copy to.
            progress: Called with the number of bytes fetched or checked since the last call.
            recheck: Compare the digest of a file that is already there. Otherwise its size
                suffices, because files get their names after their digests were checked.

        Raises:
            ShardError: The shard cannot be read or written, or does not match the manifest.
        """
        target = folder / shard.path
        if not recheck and has_size(target, shard.bytes):
            return
        with writing_alone(target):
            if has_size(target, shard.bytes):
                if not recheck or file_sha256(target, progress) == shard.sha256:
                    return
                progress(-shard.bytes)
            with_attempts(self.address, lambda: self._download(shard, target, progress))

    def save_description(self, folder: Path, table_text: bytes) -> None:
        """Write the sample table, then the manifest, into a folder, byte for byte.

        Raises:
            ShardError: They cannot be written.
        """
        for name, text in ((TABLE_NAME, table_text), (MANIFEST_NAME, self.manifest_text)):
            with writing_alone(folder / name), write_atomically(folder / name) as file:
                file.write(text)

    def cached_table(self, folder: Path) -> SampleTable:
        """Load the sample table from the folder that caches this dataset; fetch it if missing.

        Raises:
            ShardError: The table is missing and cannot be fetched or written.
        """
        try:
            return load_table(folder / TABLE_NAME, self.manifest, str(folder / TABLE_NAME))
        except ShardError:
            table, text = self.read_table()
            try:
                self.save_description(folder, text)
            except ShardError as error:
                raise ShardError(
                    f"{error}; remote datasets are cached there: set {CACHE_VARIABLE} to a "
                    "writable folder"
                ) from error
            return table

    def _download(self, shard: Shard, target: Path, progress: BytesDone) -> None:
        where = masked(below(self.address, shard.path))
        digest = hashlib.sha256()
        done = 0
        try:
            with write_atomically(target) as file:
                for chunk in stream(self.address, shard.path, shard.bytes):
                    digest.update(chunk)
                    file.write(chunk)
                    done += len(chunk)
                    progress(len(chunk))
                if done < shard.bytes:
                    raise BrokenTransferError(
                        f"{where} ended after {done} of the {shard.bytes} bytes that the manifest "
                        "gives"
                    )
                if digest.hexdigest() != shard.sha256:
                    raise ShardError(
                        f"{where} does not match its digest in the manifest: it was damaged "
                        "or altered there"
                    )
                file.flush()
                try:
                    check_pixels(Path(file.name), shard)
                except ShardError as error:
                    raise ShardError(f"{where} {error}") from error
        except BaseException:
            progress(-done)
            raise


def cache_folder(manifest_text: bytes, cache: PathLike | None = None) -> Path:
    """Return the folder that caches the files of a remote dataset.

    Args:
        manifest_text: The dataset's ``manifest.json``; its digest is the name of the folder.
        cache: Parent of these folders; by default the value of the environment variable
            ``IIRC_CACHE``, or ``~/.cache/iirc``.

    Raises:
        ShardError: No cache is given, and there is no home folder.
    """
    try:
        base = cache or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "iirc"
    except RuntimeError as error:
        raise ShardError(
            f"there is no home folder to cache remote datasets in: set {CACHE_VARIABLE} to a folder"
        ) from error
    return Path(base) / hashlib.sha256(manifest_text).hexdigest()


def has_size(path: Path, size: int) -> bool:
    """Return whether a path is a file of this size."""
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


@contextmanager
def writing_alone(target: Path) -> Iterator[None]:
    """Hold a file, see :func:`sole_writer_of`, and remove partial files of killed writers.

    Raises:
        ShardError: The file cannot be held or written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer_of(target):
            remove_partial_files_of(target)
            yield
    except InUseError as error:
        raise ShardError(str(error)) from None
    except OSError as error:
        raise ShardError(f"cannot write {target}: {error.strerror or error}") from error
