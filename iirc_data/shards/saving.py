"""Parts of shards that were fetched and are not yet on the disk, and saving them."""

import logging
import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.shards.cache_folder import Addition
from iirc_data.shards.shard_file import ShardFile

_MOST_UNSAVED = 32

logger = logging.getLogger(__name__)

MAY_READ_UNSAVED = os.name != "nt"
"""Whether a file may be read while it gets another name."""


class Unsaved:
    """A part of a shard that was fetched and checked.

    A power failure may lose it until it is saved. Until then it has a temporary name, and no other
    thread or process writes it.

    Args:
        addition: Its file.
        start: Its first byte in the shard.
        size: Its size in bytes.
        lock: What keeps others from writing it; the caller gives it up.

    Attributes:
        path: Its name in the cache.
    """

    def __init__(self, addition: Addition, start: int, size: int, lock: ExitStack) -> None:
        self.path = addition.path
        self._addition = addition
        self._start = start
        self._opened = ShardFile(addition.temporary, size) if MAY_READ_UNSAVED else None
        self._lock = lock.pop_all()

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Return bytes of the part's shard, uint8 (size,), read-only."""
        assert self._opened is not None
        return self._opened.read(offset - self._start, size)

    def save(self) -> None:
        """Wait until the part is on the disk, and give it its name in the cache.

        Raises:
            OSError: It cannot be written; it is removed.
            ShardError: The cache is in use for long.
        """
        with self._lock:
            try:
                self._addition.finish()
            except BaseException:
                self._addition.abandon()
                raise


class Saver:
    """A thread that saves blocks, which are read meanwhile; any number of threads may use it."""

    def __init__(self) -> None:
        self._unsaved: dict[int, Unsaved] = {}
        self._saving: set[Future[None]] = set()
        self._thread = ThreadPoolExecutor(1, "iirc-save")

    def __contains__(self, block: int) -> bool:
        return block in self._unsaved

    def readable(self, block: int) -> Unsaved | None:
        """Return a block that is not saved yet and may be read, or None."""
        return self._unsaved.get(block) if MAY_READ_UNSAVED else None

    def add(self, block: int, unsaved: Unsaved) -> None:
        """Save a block some time; wait only if there are many to save."""
        self._unsaved[block] = unsaved
        earlier = list(self._saving)
        try:
            saving = self._thread.submit(self._save, block, unsaved)
        except RuntimeError:  # the interpreter exits
            self._save(block, unsaved)
            return
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)
        if not MAY_READ_UNSAVED:
            wait([saving])
        elif len(earlier) >= _MOST_UNSAVED:  # the disk is slower than the link
            wait(earlier, return_when=FIRST_COMPLETED)

    def wait(self) -> None:
        """Wait until all blocks are saved."""
        wait(list(self._saving))

    def _save(self, block: int, unsaved: Unsaved) -> None:
        try:
            unsaved.save()
        except (OSError, ShardError) as error:  # it is fetched again when it is needed again
            logger.warning("cannot keep %s in the cache: %s", unsaved.path, error)
        finally:
            del self._unsaved[block]
