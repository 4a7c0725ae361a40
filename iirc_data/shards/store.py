"""Reading encoded images out of shards by sample id."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from tarfile import BLOCKSIZE, TarError, TarInfo
from time import sleep
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.reading import read_regular
from iirc_data.shards.addresses import local_path
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, load_manifest
from iirc_data.shards.remote import RemoteDataset, cache_folder
from iirc_data.shards.shard_file import ShardFile, TooManyFilesError
from iirc_data.shards.table import TABLE_NAME, SampleTable, load_table

try:
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
except ImportError:  # Windows
    _MAX_OPEN_SHARDS = 128
else:
    _limit = getrlimit(RLIMIT_NOFILE)[0]
    # half of the files that the process may open, at most 4096
    _MAX_OPEN_SHARDS = 4096 if _limit == RLIM_INFINITY else max(1, min(4096, _limit // 2))

# seconds, half a second in all: how long a read waits for other threads to close a file
_WAITS = [0.001 * 2**attempt for attempt in range(9)]


class ShardStore:
    """A sharded dataset, opened for reading by any number of threads.

    Attributes:
        root: The shard folder; for a remote dataset, the folder that caches it.
        manifest: The manifest.
        table: The sample table, one row per sample.
        looks: int8 (N,), the result of inspecting each image: 1 if all decoders give the same
            pixels, -1 if they may differ, -2 if the image is also malformed, 0 if it has not been
            inspected.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        table: SampleTable,
        remote: RemoteDataset | None = None,
    ) -> None:
        self.root = root
        self.manifest = manifest
        self.table = table
        self.looks = np.zeros(len(table), np.int8)
        self._remote = remote
        self._shard = _cached(root, manifest, remote)

    @classmethod
    def open(cls, address: PathLike, *, cache: PathLike | None = None) -> Self:
        """Open a dataset. This reads the manifest and the sample table, but no shard.

        Args:
            address: A shard folder that ``iirc data shard`` or ``iirc data pull`` wrote, or the
                URL of one (``https://…``, ``s3://…``, any URL that fsspec reads). Shards at a
                URL are fetched when they are first read, and cached.
            cache: Folder that caches remote datasets; by default the value of the environment
                variable ``IIRC_CACHE``, or ``~/.cache/iirc``.

        Raises:
            ShardError: There is no finished dataset, or the table does not match the manifest.
        """
        root = local_path(address)
        if root is None:
            remote = RemoteDataset.open(address)
            root = cache_folder(remote.manifest_text, cache)
            return cls(root, remote.manifest, remote.cached_table(root), remote)
        manifest = read_manifest(root)
        return cls(root, manifest, load_table(root / TABLE_NAME, manifest, str(root / TABLE_NAME)))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def digest(self) -> str:
        """Digest that identifies the data."""
        return self.manifest.digest

    @property
    def datasets(self) -> Mapping[str, "ShardStore"]:
        """This dataset by its name; see :class:`~iirc_data.shards.sample_store.SampleStore`."""
        return {self.manifest.dataset: self}

    def sizes(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the height and width in pixels of samples, int32 (N, 2)."""
        return self.table.sizes(sample_ids)

    def dataset_numbers(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each sample's dataset, int64 (N,): 0, for there is one."""
        return np.zeros(len(sample_ids), np.int64)

    def read(self, sample_id: int) -> NDArray[np.uint8]:
        """Return one encoded image.

        Args:
            sample_id: Row of the sample table.

        Returns:
            uint8 (bytes,), read-only.

        Raises:
            ShardError: The shard is missing, does not have the size in the manifest, was
                truncated after it was opened, or is on a failing disk.
        """
        shard = self._open_shard(int(self.table.shard[sample_id]))
        return shard.read(int(self.table.offset[sample_id]), int(self.table.size[sample_id]))

    def read_many(self, sample_ids: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return several encoded images, with less overhead than reading them one by one.

        Args:
            sample_ids: int64 (N,), rows of the sample table.

        Returns:
            See :meth:`read`.

        Raises:
            ShardError: See :meth:`read`.
        """
        return [
            self._open_shard(number).read(offset, size)
            for number, offset, size in self._places(sample_ids)
        ]

    def will_read(self, sample_ids: NDArray[np.int64]) -> None:
        """Ask the operating system to read images ahead, without waiting for them.

        The disk serves images that are announced before the first read in parallel. Shards that
        cannot be opened are skipped; :meth:`read` raises the error.

        Args:
            sample_ids: int64 (N,), rows of the sample table.
        """
        for number, offset, size in self._places(sample_ids):
            try:
                shard = self._open_shard(number, waits=())
            except ShardError:
                continue
            shard.will_read(offset, size)

    def name(self, sample_id: int) -> str:
        """Return the shard path and member name of a sample, for error messages."""
        number = int(self.table.shard[sample_id])
        start = int(self.table.offset[sample_id])
        try:
            header = self._open_shard(number).read(start - BLOCKSIZE, BLOCKSIZE).tobytes()
            member = TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except (ShardError, TarError):
            member = f"sample {sample_id}"
        return f"{self.root / self.manifest.shards[number].path}:{member}"

    def close(self) -> None:
        """Close all shards; reading opens them again."""
        self._shard.cache_clear()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_shard"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shard = _cached(self.root, self.manifest, self._remote)

    def _places(self, sample_ids: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
        """Yield shard, offset and size of each sample; indexing a column once is much faster."""
        table = self.table
        columns = (column[sample_ids] for column in (table.shard, table.offset, table.size))
        return zip(*(column.tolist() for column in columns), strict=True)

    def _open_shard(self, number: int, waits: Iterable[float] = _WAITS) -> ShardFile:
        try:
            shard: ShardFile = self._shard(number)
            return shard
        except TooManyFilesError:  # the rest of the program has too many files open
            return self._open_with_fewer(number, iter(waits))

    def _open_with_fewer(self, number: int, waits: Iterator[float]) -> ShardFile:
        while True:
            shards = self._shard
            try:
                shard: ShardFile = shards(number)
                return shard
            except TooManyFilesError:
                shards.cache_clear()
                if most_open := shards.cache_parameters()["maxsize"]:
                    self._shard = _cached(self.root, self.manifest, self._remote, most_open // 2)
                elif (wait := next(waits, None)) is not None:
                    sleep(wait)  # other threads close their shards when they have read
                else:
                    raise


def _cached(
    root: Path, manifest: Manifest, remote: RemoteDataset | None, most_open: int | None = None
) -> Any:
    """Return a function that opens a shard by number and keeps the last used shards open."""
    most_open = _MAX_OPEN_SHARDS if most_open is None else most_open
    return lru_cache(most_open)(partial(_open_shard, root, manifest, remote))


def _open_shard(
    root: Path, manifest: Manifest, remote: RemoteDataset | None, number: int
) -> ShardFile:
    shard = manifest.shards[number]
    if remote is not None:
        remote.fetch(shard, root)
    path = root / shard.path
    try:
        return ShardFile(path, shard.bytes)
    except ShardError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ShardError(
                f"shard {path} is missing: if {root} is a partial copy of a dataset, fetch the "
                f"shard with: iirc data pull ADDRESS {root}"
            ) from error
        raise


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a shard folder.

    Raises:
        ShardError: The folder is not a finished dataset.
    """
    try:
        text = read_regular(root / MANIFEST_NAME)
    except OSError as error:
        raise ShardError(
            f"{root} is not a finished shard folder (cannot read {MANIFEST_NAME}: "
            f"{error.strerror or error}): to finish writing or pulling it, run the same command "
            "again; to make one, use iirc data shard"
        ) from error
    return load_manifest(text, str(root / MANIFEST_NAME))
