"""Datasets at an address; a fetched file gets its final name after its digest was checked."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from iirc_data.definitions import PathLike
from iirc_data.errors import InUseError, ShardError
from iirc_data.files import file_sha256, remove_partial_files_of, write_atomically
from iirc_data.locks import sole_writer_of
from iirc_data.masking import masked
from iirc_data.reading import LARGEST_TEXT
from iirc_data.shards.addresses import (
    BrokenTransferError,
    below,
    local_path,
    read_whole,
    split_pin,
)
from iirc_data.shards.blocks import (
    BLOCKS_NAME,
    BlockChecksums,
    largest_blocks_file,
    need_checksums,
)
from iirc_data.shards.direct import Direct
from iirc_data.shards.fetching import fetch_range
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME, Manifest, Shard, load_manifest
from iirc_data.shards.no_dataset import no_dataset
from iirc_data.shards.parallel import BytesDone
from iirc_data.shards.pixel_digest import check_pixels
from iirc_data.shards.table import TABLE_NAME, SampleTable, largest_table_file, load_table
from iirc_data.shards.versions import version_file

CACHE_VARIABLE = "IIRC_CACHE"

Opening = Callable[[Path, int], AbstractContextManager[IO[bytes]]]
"""Opens a file to write, given its path and its size in bytes."""

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
        try:
            text = read_whole(address, manifest_name, _LARGEST_MANIFEST)
        except ShardError as error:
            root = local_path(address)
            is_absent = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
            if root is not None and is_absent and manifest_name == MANIFEST_NAME:
                raise no_dataset(root) from error
            raise
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
            self._download(shard, target, progress)

    def read_checksums(self) -> tuple[BlockChecksums, bytes] | None:
        """Read the checksums of the blocks; return them and their file's bytes.

        Returns:
            None if the dataset has none, or is an earlier version.

        Raises:
            ShardError: The checksums cannot be read or do not match the manifest.
        """
        if not need_checksums(self.manifest) or self.table_name != TABLE_NAME:
            return None
        where = masked(below(self.address, BLOCKS_NAME))
        try:
            text = read_whole(self.address, BLOCKS_NAME, largest_blocks_file(self.manifest))
        except BrokenTransferError:
            raise
        except ShardError:  # missing; some servers refuse files that do not exist
            if self.manifest.blocks_sha256 is None:
                return None
            raise
        try:
            return BlockChecksums.load(io.BytesIO(text), self.manifest, where), text
        except ShardError:
            if self._is_earlier_version():  # another one has just been published
                return None
            raise

    def read_taxonomy(self) -> bytes | None:
        """Read the file of the taxonomy.

        Returns:
            None if the dataset has none, or is an earlier version.

        Raises:
            BrokenTransferError: The file breaks off.
        """
        if self.table_name != TABLE_NAME:
            return None
        try:
            return read_whole(self.address, TAXONOMY_NAME, LARGEST_TEXT)
        except BrokenTransferError:
            raise
        except ShardError:  # missing; some servers refuse files that do not exist
            return None

    def _is_earlier_version(self) -> bool:
        name = version_file(self.manifest.digest, "json")
        with suppress(ShardError):
            return read_whole(self.address, name, _LARGEST_MANIFEST) == self.manifest_text
        return False

    def save_description(
        self,
        folder: Path,
        table_text: bytes,
        blocks_text: bytes | None = None,
        opening: Opening = lambda path, size: write_atomically(path),
    ) -> None:
        """Write checksums, sample table, and then the manifest into a folder, byte for byte.

        Args:
            folder: The folder.
            table_text: Content of ``index.npz``.
            blocks_text: Content of ``blocks.npz``, if the dataset has it.
            opening: Opens each file, given its size in bytes.

        Raises:
            ShardError: They cannot be written.
        """
        texts = {
            BLOCKS_NAME: blocks_text,
            TABLE_NAME: table_text,
            MANIFEST_NAME: self.manifest_text,
        }
        for name, text in texts.items():
            if text is None:
                continue
            with writing_alone(folder / name), opening(folder / name, len(text)) as file:
                file.write(text)

    def cached_table(self, folder: Path, opening: Opening) -> SampleTable:
        """Load the sample table from the folder that caches this dataset; fetch it if missing.

        Args:
            folder: The folder.
            opening: See :meth:`save_description`.

        Raises:
            ShardError: The table is missing and cannot be fetched or written.
        """
        try:
            return load_table(folder / TABLE_NAME, self.manifest, str(folder / TABLE_NAME))
        except ShardError:
            table, text = self.read_table()
            try:
                self.save_description(folder, text, opening=opening)
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

                def keep(chunk: bytes | memoryview) -> None:
                    nonlocal done
                    digest.update(chunk)
                    file.write(chunk)
                    progress(len(chunk))  # which may raise, and then has not counted them
                    done += len(chunk)

                size = shard.bytes
                direct = Direct()
                try:
                    fetch_range(keep, self.address, shard.path, 0, size, size, direct=direct)
                finally:
                    direct.close()
                file.flush()
                if digest.hexdigest() != shard.sha256:
                    raise ShardError(
                        f"{where} does not match its digest in the manifest: it was damaged "
                        "or altered there"
                    )
                check_pixels_of(Path(file.name), shard, where)
        except BaseException:
            progress(-done)
            raise


def cache_base(cache: PathLike | None = None) -> Path:
    """Return the folder of everything that is cached, above all remote datasets.

    Args:
        cache: The folder; by default the value of the environment variable ``IIRC_CACHE``, or
            ``~/.cache/iirc``.

    Raises:
        ShardError: No cache is given, and there is no home folder.
    """
    try:
        return Path(cache or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "iirc")
    except RuntimeError as error:
        raise ShardError(
            f"there is no home folder to cache remote datasets in: set {CACHE_VARIABLE} to a folder"
        ) from error


def check_pixels_of(path: Path, shard: Shard, where: str) -> None:
    """Check the pixels of a fetched shard, if the manifest has their digest.

    Args:
        path: The file.
        shard: The manifest's entry.
        where: Its address in error messages.

    Raises:
        ShardError: The images differ from those that the manifest describes.
    """
    try:
        check_pixels(path, shard)
    except ShardError as error:
        raise ShardError(f"{where} {error}") from error


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
