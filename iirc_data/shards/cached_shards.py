"""Reading the shards of a remote dataset through a cache of their blocks."""

import errno
import hashlib
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.shards.addresses import BrokenTransferError, Tries, below
from iirc_data.shards.blocks import (
    BLOCKS_NAME,
    BlockChecksums,
    BlockLayout,
    block_layout,
    need_checksums,
)
from iirc_data.shards.cache_folder import SIZE_VARIABLE, CacheFolder, Evict
from iirc_data.shards.fetching import NoRangesError, fetch_range
from iirc_data.shards.lookahead import AHEAD_BYTES, CONNECTIONS, Lookahead, RunningPlan, exiting
from iirc_data.shards.manifest import Shard
from iirc_data.shards.remote import RemoteDataset, check_pixels_of, has_size, writing_alone
from iirc_data.shards.shard_file import ShardFile, TooManyFilesError
from iirc_data.shards.table import SampleTable

_READS = 10  # of a block that other processes evict again and again
_SECONDS_BETWEEN_READS = 0.05
_SECONDS_BETWEEN_TOUCHES = 10.0


class _Part(NamedTuple):
    """A range of a shard that is one file in the cache: a block, or the whole shard."""

    path: Path
    shard: Shard
    start: int
    stop: int
    sha256: str

    @property
    def bytes(self) -> int:
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        return self.bytes == self.shard.bytes


class CachedShards:
    """The shards of a remote dataset, read by any number of threads.

    A block is fetched when it is read or when a plan needs it soon, checked, and kept in the cache
    until it is evicted. Without block checksums, or if the server sends whole files only, whole
    shards take the place of blocks.

    Args:
        remote: The dataset.
        root: The folder that caches it.
        cache: The folder of all cached datasets.
        table: The dataset's sample table.

    Attributes:
        fetched_bytes: Number of bytes that this object has fetched from shards.

    Raises:
        ShardError: The checksums cannot be read, or do not match the manifest.
    """

    def __init__(
        self, remote: RemoteDataset, root: Path, cache: CacheFolder, table: SampleTable
    ) -> None:
        self._remote = remote
        self._root = root
        self._cache = cache
        self._table = table
        self._checksums = self._read_checksums()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._coming: dict[int, Future[None]] = {}
        self._whole_only: set[int] = set()
        self._block_of: dict[Path, int] = {}  # of the files that were needed so far
        self._touched: dict[int, float] = {}
        self.fetched_bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        cache = self._cache
        return _restored, (self._remote, self._root, cache.base, cache.limit, self._table)

    def read(self, sample_id: int, offset: int, size: int) -> NDArray[np.uint8]:
        """Return bytes of the shard of a sample, uint8 (size,), read-only.

        Args:
            sample_id: The sample.
            offset: First byte, within the sample or its header.
            size: Number of bytes.

        Raises:
            ShardError: The bytes cannot be fetched, or not be read from the cache.
        """
        self._after_fork()
        block = int(self.layout.of_samples(np.array([sample_id]))[0])
        failure: ShardError
        for _ in range(_READS):
            for part in self._parts(block):
                try:
                    content = ShardFile(part.path, part.bytes).read(offset - part.start, size)
                except TooManyFilesError as error:
                    failure = error
                    time.sleep(_SECONDS_BETWEEN_READS)
                except ShardError as error:
                    failure = error
                else:
                    self._touch(block, part.path)
                    return content
            self.bring(block, Evict.ANYTHING)
        if _is_missing(failure):
            raise ShardError(
                f"{self._parts(block)[0].path} is evicted before it can be read: raise "
                f"{SIZE_VARIABLE} or the setting cache_size"
            )
        raise failure

    def plan(self, sample_ids: NDArray[np.int64]) -> RunningPlan:
        """Fetch ahead for a reader of these samples, in this order; see :class:`Lookahead`."""
        self._after_fork()
        return self._lookahead.plan(self.layout.of_samples(sample_ids))

    def expect(self, sample_ids: NDArray[np.int64]) -> None:
        """Fetch the blocks of samples when nothing else is needed, as far as there is room."""
        self._after_fork()
        blocks = self.layout.of_samples(sample_ids)
        found, first = np.unique(blocks, return_index=True)
        self._lookahead.expect(found[np.argsort(first)].tolist())

    def close(self) -> None:
        """Stop fetching ahead."""
        if "_lookahead" in self.__dict__ and self._process == os.getpid():
            self._lookahead.close()

    def bring(self, block: int, evict: Evict) -> float | None:
        """Fetch a block, unless it is in the cache; wait for a thread that is fetching it.

        Returns:
            The part of the time of the transfer that passed before its first byte, in [0, 1]; None
            if there was no transfer.

        Raises:
            NoRoomError: See :meth:`CacheFolder.adding`.
            ShardError: The block cannot be fetched or written, or does not match its checksum.
        """
        with self._lock:
            coming = self._coming.get(block)
            is_own = coming is None
            if coming is None:
                coming = self._coming[block] = Future()
        if not is_own:
            coming.exception()  # what failed there, the caller tries again itself
            return None
        try:
            parts = self._parts(block)
            self._block_of[parts[0].path] = block
            for part in parts:
                if has_size(part.path, part.bytes):
                    with suppress(OSError):
                        os.utime(part.path)
                    return None
            try:
                return self._fetch(parts[0], evict)
            except NoRangesError:
                self._whole_only.add(int(self.layout.shard[block]))
                return self._fetch(self._parts(block)[0], evict)
        finally:
            with self._lock:
                del self._coming[block]
            coming.set_result(None)

    @cached_property
    def layout(self) -> BlockLayout:
        """The blocks of the dataset."""
        size = None if self._checksums is None else self._checksums.block_size
        return block_layout(self._table, self._remote.manifest, size)

    def _read_checksums(self) -> BlockChecksums | None:
        manifest, path = self._remote.manifest, self._root / BLOCKS_NAME
        if not need_checksums(manifest):
            return None
        try:
            return BlockChecksums.load(path, manifest, str(path))
        except ShardError:
            found = self._remote.read_checksums()
            if found is None:
                return None
            checksums, text = found
            with writing_alone(path), self._cache.adding(path, len(text)) as file:
                file.write(text)
            return checksums

    @cached_property
    def _lookahead(self) -> Lookahead:
        limit = self._cache.limit
        most = AHEAD_BYTES if limit is None else min(AHEAD_BYTES, limit // 4)
        lookahead = Lookahead(
            self.bring,
            self.layout.stop - self.layout.start,
            most=most,
            least=CONNECTIONS if limit is None else 1,
            changed=self._announce_pins,
        )
        block_of = self._block_of

        def is_pinned(path: Path) -> bool:
            return path in block_of and lookahead.pins(block_of[path])

        def pinned() -> list[Path]:
            return [self._parts(block)[0].path for block in lookahead.pinned()]

        self._cache.pin(is_pinned, pinned)
        return lookahead

    def _announce_pins(self, are_pinned: bool) -> None:
        if are_pinned and self._cache.limit is not None:
            self._cache.announce_pins()
        elif not are_pinned:
            self._cache.withdraw_pins()

    def _touch(self, block: int, path: Path) -> None:
        """Mark a file as used, from time to time."""
        now = time.monotonic()
        if now > self._touched.get(block, float("-inf")) + _SECONDS_BETWEEN_TOUCHES:
            self._touched[block] = now
            with suppress(OSError):
                os.utime(path)

    def _parts(self, block: int) -> list[_Part]:
        """Return the files that may hold a block; the first is the one to fetch."""
        layout = self.layout
        number = int(layout.shard[block])
        shard = self._remote.manifest.shards[number]
        whole = _Part(self._root / shard.path, shard, 0, shard.bytes, shard.sha256)
        start, stop = int(layout.start[block]), int(layout.stop[block])
        if stop - start == shard.bytes or self._checksums is None or number in self._whole_only:
            return [whole]
        name = f"{start:012d}-{stop:012d}"
        sha256 = self._checksums.sha256[block].tobytes().hex()
        path = self._root / f"{shard.path}.blocks" / name
        return [_Part(path, shard, start, stop, sha256), whole]

    def _fetch(self, part: _Part, evict: Evict) -> float | None:
        tries = Tries(self._remote.address)
        waited = None
        with writing_alone(part.path):
            while not has_size(part.path, part.bytes):
                try:
                    with self._cache.adding(part.path, part.bytes, evict) as file:
                        waited = self._fetch_into(file, part)
                except _AlteredError as error:  # damaged on the way, or there
                    tries.failed(error)
        return waited

    def _fetch_into(self, file: Any, part: _Part) -> float:
        digest = hashlib.sha256()
        started = time.monotonic()
        first: float | None = None

        def keep(data: bytes) -> None:
            nonlocal first
            first = time.monotonic() if first is None else first
            if exiting.is_set():
                raise ShardError("the program ends")
            digest.update(data)
            file.write(data)
            with self._lock:
                self.fetched_bytes += len(data)

        address, shard = self._remote.address, part.shard
        fetch_range(keep, address, shard.path, part.start, part.stop, shard.bytes)
        ended = time.monotonic()
        where = masked(below(address, shard.path))
        is_right = digest.hexdigest() == part.sha256
        if part.is_whole and is_right:
            file.flush()
            check_pixels_of(Path(file.name), shard, where)
        elif not is_right:
            sums = "digest in the manifest"
            if not part.is_whole:
                sums = f"checksum in {BLOCKS_NAME} from byte {part.start} to {part.stop}"
            raise _AlteredError(
                f"{where} does not match its {sums}: it was damaged or altered there"
            )
        return ((first or ended) - started) / max(ended - started, 1e-9)

    def _after_fork(self) -> None:
        """Begin again in a forked process, which has neither the threads nor their locks."""
        if self._process != os.getpid():
            self.__dict__.pop("_lookahead", None)
            self._cache = CacheFolder(self._cache.base, self._cache.limit)
            self._begin()


class _AlteredError(BrokenTransferError):
    """A block does not match its checksum."""


def _restored(
    remote: RemoteDataset, root: Path, base: Path, limit: int | None, table: SampleTable
) -> CachedShards:
    return CachedShards(remote, root, CacheFolder(base, limit), table)


def _is_missing(error: ShardError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.ESTALE)
