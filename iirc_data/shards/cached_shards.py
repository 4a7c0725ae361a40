"""Reading the shards of a remote dataset through a cache of their blocks."""

import errno
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.shards.blocks import (
    BLOCKS_NAME,
    BlockChecksums,
    BlockLayout,
    block_layout,
    need_checksums,
)
from iirc_data.shards.cache_folder import CacheFolder, Evict
from iirc_data.shards.cache_size import SIZE_VARIABLE
from iirc_data.shards.fetching import NoRangesError
from iirc_data.shards.lookahead import AHEAD_BYTES, CONNECTIONS, Lookahead, RunningPlan
from iirc_data.shards.pace import Course, Pace
from iirc_data.shards.remote import RemoteDataset, has_size, writing_alone
from iirc_data.shards.saving import Saver
from iirc_data.shards.shard_file import ShardFile, TooManyFilesError
from iirc_data.shards.table import SampleTable
from iirc_data.shards.transfer import Part, Transfer

_READS = 10  # of a block that other processes evict again and again
_SECONDS_BETWEEN_READS = 0.05
_SECONDS_BETWEEN_TOUCHES = 10.0


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
        self._transfer = Transfer(self._remote, self._cache)
        self._pace = Pace(CONNECTIONS)
        self._saver = Saver()

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
        return self.read_many(np.array([sample_id]), [(offset, size)])[0]

    def read_many(
        self, sample_ids: NDArray[np.int64], places: Sequence[tuple[int, int]]
    ) -> list[NDArray[np.uint8]]:
        """Return bytes of the shards of several samples; see :meth:`read`.

        Each block is opened once.

        Args:
            sample_ids: int64 (N,), the samples.
            places: Offset and size of each.
        """
        self._after_fork()
        of_block: dict[int, list[int]] = {}
        for number, block in enumerate(self.layout.of_samples(sample_ids).tolist()):
            of_block.setdefault(block, []).append(number)
        found: dict[int, NDArray[np.uint8]] = {}
        for block, numbers in of_block.items():
            contents = self._read_block(block, [places[number] for number in numbers])
            found.update(zip(numbers, contents, strict=True))
        return [found[number] for number in range(len(places))]

    def _read_block(self, block: int, places: list[tuple[int, int]]) -> list[NDArray[np.uint8]]:
        failure: ShardError
        for _ in range(_READS):
            if (unsaved := self._saver.readable(block)) is not None:
                return [unsaved.read(offset, size) for offset, size in places]
            for part in self._parts(block):
                try:
                    file = ShardFile(part.path, part.bytes)
                    contents = [file.read(offset - part.start, size) for offset, size in places]
                except TooManyFilesError as error:
                    failure = error
                    time.sleep(_SECONDS_BETWEEN_READS)
                except ShardError as error:
                    failure = error
                else:
                    self._touch(block, part.path)
                    return contents
            self.bring(block, Evict.ANYTHING)
        if _is_missing(failure):
            raise ShardError(
                f"{self._parts(block)[0].path} is evicted before it can be read: raise "
                f"{SIZE_VARIABLE} or the setting cache_size"
            )
        raise failure

    @property
    def fetched_bytes(self) -> int:
        """Number of bytes of shards that this object has fetched."""
        return self._transfer.fetched_bytes

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
        """Stop fetching ahead, and wait until what was fetched is saved."""
        if self._process != os.getpid():
            return
        if "_lookahead" in self.__dict__:
            self._lookahead.close()
        self._saver.wait()
        self._transfer.close()

    def bring(self, block: int, evict: Evict, course: Course | None = None) -> None:
        """Fetch a block, unless it is in the cache; wait for a thread that is fetching it.

        Args:
            block: The block.
            evict: What may be evicted for it.
            course: Its transfer, if it has started.

        Raises:
            NoRoomError: See :meth:`CacheFolder.begin`.
            ShardError: The block cannot be fetched or written, or does not match its checksum.
        """
        with self._lock:
            coming = self._coming.get(block)
            is_own = coming is None
            if coming is None:
                coming = self._coming[block] = Future()
        if not is_own:
            if course is not None:
                course.end(is_complete=False)
            coming.exception()  # what failed there, the caller tries again itself
            return
        try:
            if block not in self._saver and not self._is_cached(block):
                with course or self._pace.begin(self._parts(block)[0].bytes) as course:
                    self._fetch(block, evict, course)
        finally:
            with self._lock:
                del self._coming[block]
            coming.set_result(None)

    def _is_at_hand(self, block: int) -> bool:
        """Return whether a block can be read without waiting for a transfer."""
        if block in self._saver:
            return True
        return any(has_size(part.path, part.bytes) for part in self._parts(block))

    def _is_cached(self, block: int) -> bool:
        parts = self._parts(block)
        self._block_of[parts[0].path] = block
        for part in parts:
            if has_size(part.path, part.bytes):
                with suppress(OSError):
                    os.utime(part.path)
                return True
        return False

    def _fetch(self, block: int, evict: Evict, course: Course) -> None:
        try:
            unsaved = self._transfer.fetch(self._parts(block)[0], evict, course)
        except NoRangesError:
            self._whole_only.add(int(self.layout.shard[block]))
            unsaved = self._transfer.fetch(self._parts(block)[0], evict, course)
        if unsaved is None:
            return
        self._saver.add(block, unsaved)

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
            n_blocks = len(block_layout(self._table, manifest, checksums.block_size))
            if len(checksums.sha256) != n_blocks:
                raise ShardError(
                    f"{path.name} of {masked(self._remote.address)} has {len(checksums.sha256)} "
                    f"checksums for {n_blocks} blocks: it was altered there"
                ) from None
            with writing_alone(path), self._cache.adding(path, len(text)) as file:
                file.write(text)
            return checksums

    @cached_property
    def _lookahead(self) -> Lookahead:
        limit = self._cache.limit
        most = AHEAD_BYTES if limit is None else min(AHEAD_BYTES, limit // 4)
        lookahead = Lookahead(
            self.bring,
            self._is_at_hand,
            self._pace,
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

        self._cache.pins.pin(is_pinned, pinned)
        return lookahead

    def _announce_pins(self, are_pinned: bool) -> None:
        if are_pinned and self._cache.limit is not None:
            self._cache.pins.announce()
        elif not are_pinned:
            self._cache.pins.withdraw()

    def _touch(self, block: int, path: Path) -> None:
        """Mark a file as used, from time to time."""
        now = time.monotonic()
        if now > self._touched.get(block, float("-inf")) + _SECONDS_BETWEEN_TOUCHES:
            self._touched[block] = now
            with suppress(OSError):
                os.utime(path)

    def _parts(self, block: int) -> list[Part]:
        """Return the files that may hold a block; the first is the one to fetch."""
        layout = self.layout
        number = int(layout.shard[block])
        shard = self._remote.manifest.shards[number]
        whole = Part(self._root / shard.path, shard, 0, shard.bytes, shard.sha256)
        start, stop = int(layout.start[block]), int(layout.stop[block])
        if stop - start == shard.bytes or self._checksums is None or number in self._whole_only:
            return [whole]
        name = f"{start:012d}-{stop:012d}"
        sha256 = self._checksums.sha256[block].tobytes().hex()
        path = self._root / f"{shard.path}.blocks" / name
        return [Part(path, shard, start, stop, sha256), whole]

    def _after_fork(self) -> None:
        """Begin again in a forked process, which has neither the threads nor their locks."""
        if self._process != os.getpid():
            self.__dict__.pop("_lookahead", None)
            self._cache = CacheFolder(self._cache.base, self._cache.limit)
            self._begin()


def _restored(
    remote: RemoteDataset, root: Path, base: Path, limit: int | None, table: SampleTable
) -> CachedShards:
    return CachedShards(remote, root, CacheFolder(base, limit), table)


def _is_missing(error: ShardError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.ESTALE)
