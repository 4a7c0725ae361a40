"""Reading encoded images out of shards by sample id."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from tarfile import TarError
from time import sleep
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.reading import read_regular
from iirc_data.shards.addresses import local_path, split_pin
from iirc_data.shards.blocks import BlockLayout, blocks_of_dataset
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.cache_size import size_in_bytes
from iirc_data.shards.cached_shards import CachedShards
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, load_manifest
from iirc_data.shards.member_name import member_name
from iirc_data.shards.no_dataset import no_dataset
from iirc_data.shards.reading_plan import NoPlan, ReadingPlan
from iirc_data.shards.remote import RemoteDataset, cache_base
from iirc_data.shards.shard_file import ShardFile, TooManyFilesError
from iirc_data.shards.table import TABLE_NAME, SampleTable, load_table
from iirc_data.shards.versions import version_file

try:
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
except ImportError:  # Windows
    MAX_OPEN_SHARDS = 128
else:
    _limit = getrlimit(RLIMIT_NOFILE)[0]
    # half of the files that the process may open, at most 4096
    MAX_OPEN_SHARDS = 4096 if _limit == RLIM_INFINITY else max(1, min(4096, _limit // 2))

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
        cached: CachedShards | None = None,
    ) -> None:
        self.root = root
        self.manifest = manifest
        self.table = table
        self.looks = np.zeros(len(table), np.int8)
        self._cached = cached
        self._shard = _kept_open(root, manifest)

    @classmethod
    def open(
        cls,
        address: PathLike,
        *,
        cache: PathLike | None = None,
        cache_size: int | str | None = None,
    ) -> Self:
        """Open a dataset. This reads the manifest and the sample table, but no shard.

        Args:
            address: A shard folder that ``iirc data shard`` or ``iirc data pull`` wrote, or the
                URL of one (``https://…``, ``s3://…``, any URL that fsspec reads). Blocks of
                shards at a URL are fetched when they are read, or before, and cached.
                ``ADDRESS@sha256:DIGEST`` pins the digest of the dataset.
            cache: Folder that caches remote datasets; by default the value of the environment
                variable ``IIRC_CACHE``, or ``~/.cache/iirc``.
            cache_size: Limit of that folder, in bytes or as text such as ``"50GB"``; by default the
                value of ``IIRC_CACHE_SIZE``, or the limit that ``iirc data cache --limit`` set.

        Raises:
            ShardError: There is no finished dataset, none with the pinned digest, the table does
                not match the manifest, or ``cache_size`` is not a size.
        """
        root = local_path(address)
        if root is None:
            remote = RemoteDataset.open(address)
            folder = CacheFolder(cache_base(cache), size_in_bytes(cache_size))
            root = folder.of_manifest(remote.manifest_text)
            table = remote.cached_table(root, folder.adding)
            cached = CachedShards(remote, root, folder, table)
            return cls(root, remote.manifest, table, cached)
        manifest, path = read_manifest(root), root / TABLE_NAME
        if split_pin(address)[1] not in (None, manifest.digest):
            earlier = RemoteDataset.open(address)
            manifest, path = earlier.manifest, root / earlier.table_name
        try:
            return cls(root, manifest, load_table(path, manifest, str(path)))
        except ShardError:
            path = root / version_file(manifest.digest, "npz")
            if not path.exists():
                raise
            # a new version is being published there
            return cls(root, manifest, load_table(path, manifest, str(path)))

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

    def encoded_sizes(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of encoded images in bytes, int64 (N,)."""
        return np.asarray(self.table.size[sample_ids], np.int64)

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
        return self._bytes(
            sample_id, int(self.table.offset[sample_id]), int(self.table.size[sample_id])
        )

    def plan(self, sample_ids: NDArray[np.int64]) -> ReadingPlan:
        """Announce which images will be read, and in which order.

        The blocks of a remote dataset are fetched ahead, several at a time, and stay in the cache
        until they have been read. For a local dataset, :meth:`will_read` does what there is to do.

        Args:
            sample_ids: int64 (N,), rows of the sample table in the order of reading.

        Returns:
            The plan: call ``advance(n)`` after reading ``n`` more images, and ``close()`` at the
            end.
        """
        return NoPlan() if self._cached is None else self._cached.plan(sample_ids)

    def expect(self, sample_ids: NDArray[np.int64]) -> None:
        """Announce images that will be read later, for example those of the next task.

        Their blocks are fetched when no plan needs any, as far as the cache has free room.

        Args:
            sample_ids: int64 (N,), rows of the sample table.
        """
        if self._cached is not None:
            self._cached.expect(sample_ids)

    @property
    def is_remote(self) -> bool:
        """Whether shards are fetched into the cache; False for a local dataset."""
        return self._cached is not None

    @property
    def fetched_bytes(self) -> int:
        """Number of bytes of shards that this object has fetched; 0 for a local dataset."""
        return 0 if self._cached is None else self._cached.fetched_bytes

    @cached_property
    def blocks(self) -> BlockLayout:
        """The blocks of the dataset, which are equal wherever it is."""
        return blocks_of_dataset(self.table, self.manifest)

    def block_numbers(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number in :attr:`blocks` of the block that holds each sample, int64 (N,)."""
        return self.blocks.of_samples(sample_ids)

    def read_many(self, sample_ids: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return several encoded images, with less overhead than reading them one by one.

        Args:
            sample_ids: int64 (N,), rows of the sample table.

        Returns:
            See :meth:`read`.

        Raises:
            ShardError: See :meth:`read`.
        """
        places = self._places(sample_ids)
        if (cached := self._cached) is not None:
            return cached.read_many(sample_ids, [place[1:] for place in places])
        return [self._open_shard(number).read(offset, size) for number, offset, size in places]

    def will_read(self, sample_ids: NDArray[np.int64]) -> None:
        """Ask the operating system to read images ahead, without waiting for them.

        The disk serves images that are announced before the first read in parallel. Shards that
        cannot be opened are skipped; :meth:`read` raises the error. Of remote datasets nothing is
        read ahead, see :meth:`plan`.

        Args:
            sample_ids: int64 (N,), rows of the sample table.
        """
        if self._cached is not None:
            return
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

        def read(offset: int, size: int) -> bytes:
            return self._bytes(sample_id, offset, size).tobytes()

        try:
            member = member_name(read, start)
        except (ShardError, TarError):
            member = f"sample {sample_id}"
        return f"{self.root / self.manifest.shards[number].path}:{member}"

    def close(self) -> None:
        """Close all shards and stop fetching ahead; reading opens them again."""
        self._shard.cache_clear()
        if self._cached is not None:
            self._cached.close()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_shard"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shard = _kept_open(self.root, self.manifest)

    def _bytes(self, sample_id: int, offset: int, size: int) -> NDArray[np.uint8]:
        if self._cached is not None:
            return self._cached.read(sample_id, offset, size)
        return self._open_shard(int(self.table.shard[sample_id])).read(offset, size)

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
                    self._shard = _kept_open(self.root, self.manifest, most_open // 2)
                elif (wait := next(waits, None)) is not None:
                    sleep(wait)  # other threads close their shards when they have read
                else:
                    raise


def _kept_open(root: Path, manifest: Manifest, most_open: int | None = None) -> Any:
    """Return a function that opens a shard by number and keeps the last used shards open."""
    most_open = MAX_OPEN_SHARDS if most_open is None else most_open
    return lru_cache(most_open)(partial(_open_shard, root, manifest))


def _open_shard(root: Path, manifest: Manifest, number: int) -> ShardFile:
    shard = manifest.shards[number]
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
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_dataset(root) from error
    except OSError as error:
        raise ShardError(
            f"cannot read {root / MANIFEST_NAME}: {error.strerror or error}"
        ) from error
    return load_manifest(text, str(root / MANIFEST_NAME))
