"""Bringing a part of a shard into the cache, checked."""

import hashlib
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple

from iirc_data.errors import ShardError
from iirc_data.masking import masked
from iirc_data.shards.addresses import BrokenTransferError, Tries, below
from iirc_data.shards.blocks import BLOCKS_NAME
from iirc_data.shards.cache_folder import CacheFolder, Evict
from iirc_data.shards.direct import Direct
from iirc_data.shards.fetching import fetch_range
from iirc_data.shards.lookahead import exiting
from iirc_data.shards.manifest import Shard
from iirc_data.shards.pace import Course
from iirc_data.shards.remote import RemoteDataset, check_pixels_of, has_size, writing_alone
from iirc_data.shards.saving import Unsaved


class Part(NamedTuple):
    """A range of a shard that is one file in the cache: a block, or the whole shard.

    Attributes:
        path: The file in the cache.
        shard: The shard.
        start: First byte in the shard.
        stop: End of the bytes in the shard.
        sha256: Their digest.
    """

    path: Path
    shard: Shard
    start: int
    stop: int
    sha256: str

    @property
    def bytes(self) -> int:
        """Size of the range."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Whether the range is the whole shard."""
        return self.bytes == self.shard.bytes


class AlteredError(BrokenTransferError):
    """A part does not match its checksum: it was damaged on the way, or there."""


class Transfer:
    """Fetches parts of a dataset's shards into a cache; any number of threads may use it.

    Args:
        remote: The dataset.
        cache: The cache.

    Attributes:
        fetched_bytes: Number of bytes fetched.
    """

    def __init__(self, remote: RemoteDataset, cache: CacheFolder) -> None:
        self._remote = remote
        self._cache = cache
        self._direct = Direct()
        self._counting = Lock()
        self.fetched_bytes = 0

    def fetch(self, part: Part, evict: Evict, course: Course) -> "Unsaved | None":
        """Fetch a part, unless it is in the cache; wait for a process that is fetching it.

        Args:
            part: The part.
            evict: What may be evicted for it.
            course: The transfer, as the pace counts it; ended when the part is checked.

        Returns:
            The part, checked, which the caller saves; None if it is in the cache.

        Raises:
            NoRangesError: The server sends whole files only.
            NoRoomError: See :meth:`CacheFolder.begin`.
            ShardError: The part cannot be fetched or written, or does not match its checksum.
        """
        tries = Tries(self._remote.address)
        with ExitStack() as lock:
            lock.enter_context(writing_alone(part.path))
            while not has_size(part.path, part.bytes):
                addition = self._cache.begin(part.path, part.bytes, evict)
                try:
                    self._fetch_into(addition.file, part, course)
                    return Unsaved(addition, part.start, part.bytes, lock)
                except AlteredError as error:  # damaged on the way, or there
                    addition.abandon()
                    tries.failed(error)
                except BaseException:
                    addition.abandon()
                    raise
        return None

    def close(self) -> None:
        """Close the connections that no thread uses."""
        self._direct.close()

    def _fetch_into(self, file: IO[bytes], part: Part, course: Course) -> None:
        digest = hashlib.sha256()
        course.requested()

        def keep(data: bytes | memoryview) -> None:
            if exiting.is_set():
                raise ShardError("the program ends")
            digest.update(data)
            file.write(data)
            course.received(len(data))
            with self._counting:
                self.fetched_bytes += len(data)

        address, shard = self._remote.address, part.shard
        span = part.start, part.stop, shard.bytes
        fetch_range(keep, address, shard.path, *span, direct=self._direct, began=course.begins)
        file.flush()
        where = masked(below(address, shard.path))
        is_right = digest.hexdigest() == part.sha256
        if part.is_whole and is_right:
            check_pixels_of(Path(file.name), shard, where)
        elif not is_right:
            sums = "digest in the manifest"
            if not part.is_whole:
                sums = f"checksum in {BLOCKS_NAME} from byte {part.start} to {part.stop}"
            raise AlteredError(
                f"{where} does not match its {sums}: it was damaged or altered there"
            )
        course.end(is_complete=True)
