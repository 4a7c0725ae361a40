"""The folder that caches remote datasets: its size limit, and what it evicts.

Any number of processes, on any number of machines, may share a folder. The files themselves are the
state: a file in transfer has its full size from the start, under a temporary name. So the sizes of
all files add up to what the folder holds, or has promised to hold. A lock protects this sum while a
file is added. ``usage`` holds the sum, so that it need not be recomputed; a killed process can only
leave it too large, and it is recomputed before it refuses anything.
"""

import hashlib
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import IO

from iirc_data.errors import InUseError, ShardError
from iirc_data.files import make_folder, partial_file, sync_file, write_atomically
from iirc_data.locks import sole_writer_of
from iirc_data.shards.blocks import BLOCKS_NAME
from iirc_data.shards.cache_files import CachedFile, files_below, is_stale
from iirc_data.shards.cache_pins import Pins
from iirc_data.shards.cache_size import LIMIT_NAME, SIZE_VARIABLE, limit_of
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.shards.table import TABLE_NAME

DESCRIPTION_NAMES = frozenset({MANIFEST_NAME, TABLE_NAME, BLOCKS_NAME, "zarr.json"})

_DATASET = re.compile(r"[0-9a-f]{64}")
_REST_AFTER_SCAN = 10  # times as long as a scan takes
_SECONDS_BETWEEN_LOOKS = 0.05
_LONGEST_WAIT = 600.0
_PROMISED_AT_ONCE = 1 << 26  # bytes
_STATE_BYTES = 1 << 18  # of the limit, for pins and locks


class Evict(Enum):
    """What may be evicted to make room for a file."""

    NOTHING = "nothing"
    UNPINNED = "unpinned"
    ANYTHING = "anything"


class NoRoomError(ShardError):
    """The cache has no room for a file that no reader waits for."""


class Addition:
    """A file that is being added to a cache: :meth:`finish` or :meth:`abandon` it.

    Attributes:
        path: Its final name.
        temporary: Its name until it is finished.
        file: The binary file to write to.
    """

    def __init__(
        self, cache: "CacheFolder", path: Path, temporary: Path, size: int, file: IO[bytes]
    ) -> None:
        self._cache = cache
        self._size = size
        self.path = path
        self.temporary = temporary
        self.file = file

    def finish(self) -> None:
        """Wait until the file is on the disk, and give it its final name.

        Raises:
            OSError: The file cannot be written; abandon it.
        """
        with self.file as file:
            file.flush()
            sync_file(file.fileno())  # a power failure would leave a file of zeros
        self._cache.rename(self.temporary, self.path)

    def abandon(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self.temporary.unlink()
            self._cache.give_back(self._size)


class CacheFolder:
    """A folder that caches remote datasets.

    Args:
        base: The folder; created when the first file is added.
        limit: Largest number of bytes that it holds. By default the value of the environment
            variable ``IIRC_CACHE_SIZE``, or what ``iirc data cache --limit`` set, or no limit.

    Attributes:
        base: The folder.
        limit: Largest number of bytes, or None.
        pins: The files that running epochs need next.

    Raises:
        ShardError: The limit is not a size.
    """

    def __init__(self, base: Path, limit: int | None = None) -> None:
        self.base = base
        self.limit = limit if limit is not None else limit_of(base)
        self.pins = Pins(base)
        self._adding = Lock()
        self._oldest: deque[CachedFile] = deque()
        self._needed: deque[CachedFile] = deque()
        self._may_scan = float("-inf")
        self._promised = 0

    def of_manifest(self, manifest_text: bytes) -> Path:
        """Return the folder of a dataset, named by the digest of its ``manifest.json``."""
        return self.base / hashlib.sha256(manifest_text).hexdigest()

    @contextmanager
    def adding(self, path: Path, size: int, evict: Evict = Evict.ANYTHING) -> Iterator[IO[bytes]]:
        """Open a temporary file; on success rename it to its final name.

        See :meth:`begin`. On any exception the file is removed.

        Yields:
            The binary file to write to.
        """
        addition = self.begin(path, size, evict)
        try:
            yield addition.file
            addition.finish()
        except BaseException:
            addition.abandon()
            raise

    def begin(self, path: Path, size: int, evict: Evict = Evict.ANYTHING) -> "Addition":
        """Open a temporary file, which counts with its full size from the start.

        Args:
            path: The file's final name, below :attr:`base`; the caller is its only writer.
            size: Its size in bytes.
            evict: What may be evicted. With ``ANYTHING``, wait for room.

        Raises:
            NoRoomError: There is no room.
            ShardError: The limit is too small for this file, or the folder is in use for long.
            OSError: The file cannot be written.
        """
        temporary = partial_file(path)
        return Addition(self, path, temporary, size, self._reserved(temporary, size, evict))

    def datasets(self) -> list[Path]:
        """Return the folders of the cached datasets and features, each named by a digest."""
        with suppress(OSError):
            return sorted(p for p in self.base.iterdir() if _DATASET.fullmatch(p.name))
        return []

    def held(self, dataset: Path) -> list[CachedFile]:
        """Return the files of a cached dataset, also those in transfer."""
        return list(files_below(dataset))

    def set_limit(self, limit: int | None) -> None:
        """Set the limit for all processes that state none, and evict what exceeds it.

        Raises:
            OSError: The folder cannot be written.
        """
        make_folder(self.base)
        with write_atomically(self.base / LIMIT_NAME) as file:
            file.write(f"{'' if limit is None else limit}\n".encode())
        self.limit = limit
        with self.locked():
            used = self._scan()
            if limit is not None:
                used = self._evict(used, int(self._room()), Evict.UNPINNED)
            self._write_usage(used)

    def clear(self, dataset: Path) -> int:
        """Remove a dataset; what reads it fetches it again. Return the number of bytes freed."""
        freed = 0
        with self.locked():
            for file in list(files_below(dataset)):
                with suppress(FileNotFoundError):
                    if not file.path.name.startswith("."):
                        file.path.unlink()
                        freed += file.bytes
            for folder in sorted(dataset.rglob("*"), reverse=True):
                with suppress(OSError):  # a file of it is in transfer
                    folder.rmdir()
            with suppress(OSError):
                dataset.rmdir()
            self._write_usage(self._scan())
        return freed

    def _reserved(self, temporary: Path, size: int, evict: Evict) -> IO[bytes]:
        """Create a file of its final size, as soon as there is room."""
        if self.limit is None:
            self._promise(size)
            return _created(temporary, size)
        deadline = time.monotonic() + _LONGEST_WAIT
        while True:
            with self.locked():
                limit = self._room()
                used = self._usage()
                if used + size > limit:
                    used = self._make_room(used, int(limit) - size, evict)
                if used + size <= limit:
                    self._write_usage(used + size)  # first: a kill must not leave it too small
                    return _created(temporary, size)
                self._write_usage(used)
            if evict is not Evict.ANYTHING:
                raise NoRoomError(f"the cache {self.base} is full of what is needed next")
            if size > limit or time.monotonic() > deadline:
                raise ShardError(
                    f"the cache {self.base} may hold {self.limit} bytes, which leaves no room for "
                    f"{size} more: raise {SIZE_VARIABLE} or the setting cache_size"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # other files are in transfer

    def _promise(self, size: int) -> None:
        """Count bytes for the processes that have a limit, those of many files at a time."""
        with self._adding:
            self._promised -= size
            more = max(_PROMISED_AT_ONCE, -self._promised) if self._promised < 0 else 0
            self._promised += more
        if more:
            with self.locked():
                self._write_usage(self._usage() + more)

    def _room(self) -> float:
        if self.limit is None:
            return float("inf")
        return self.limit - min(_STATE_BYTES, self.limit // 10)

    def _make_room(self, used: int, most: int, evict: Evict) -> int:
        """Evict until at most ``most`` bytes are used; return the number of bytes used."""
        if evict is not Evict.NOTHING:
            used = self._evict(used, most, Evict.UNPINNED)
        if used > most and (evict is Evict.ANYTHING or time.monotonic() >= self._may_scan):
            used = self._scan()
            if evict is not Evict.NOTHING:
                used = self._evict(used, most, Evict.UNPINNED)
        if used > most and evict is Evict.ANYTHING:  # a reader waits
            self._oldest, self._needed = self._needed, deque()
            used = self._evict(used, most, Evict.ANYTHING)
        return used

    def _evict(self, used: int, most: int, evict: Evict) -> int:
        while used > most and self._oldest:
            file = self._oldest.popleft()
            if self.pins.is_own(file.path) and evict is not Evict.ANYTHING:
                self._needed.append(file)
                continue
            with suppress(OSError):  # another process has evicted it
                status = file.path.stat()
                if status.st_mtime_ns <= file.used:  # otherwise used since; the next scan lists it
                    file.path.unlink()
                    used -= status.st_size
        return used

    def _scan(self) -> int:
        """List what can be evicted; return the bytes of all files, also of those in transfer."""
        started = time.monotonic()
        used = 0
        pinned = self.pins.everywhere()
        files: list[tuple[bool, CachedFile]] = []
        for dataset in self.datasets():
            for file in files_below(dataset):
                name = file.path.name
                if name.endswith(".partial") and is_stale(file):
                    with suppress(OSError):
                        file.path.unlink()
                    continue
                used += file.bytes
                if not name.startswith(".") and name not in DESCRIPTION_NAMES:
                    files.append((file.path in pinned, file))
        files.sort(key=lambda item: item[1].used)
        self._oldest = deque(file for is_pinned, file in files if not is_pinned)
        self._needed = deque(file for is_pinned, file in files if is_pinned)
        self._may_scan = time.monotonic() + _REST_AFTER_SCAN * (time.monotonic() - started)
        return used

    def rename(self, temporary: Path, path: Path) -> None:
        """Give an added file its final name; a file that it replaces no longer counts.

        Raises:
            OSError: The folder cannot be written.
        """
        if self.limit is None and not path.exists():
            temporary.replace(path)
            return
        with self.locked():  # otherwise a scan could miss both names
            replaced = path.stat().st_size if path.exists() else 0
            used = self._usage() if replaced else 0
            temporary.replace(path)
            if replaced:
                self._write_usage(used - replaced)

    def give_back(self, size: int) -> None:
        """Record that a file was removed.

        Raises:
            OSError: The folder cannot be written.
        """
        with self.locked():
            self._write_usage(self._usage() - size)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no other process adds or removes files.

        Raises:
            ShardError: The folder is in use for long.
        """
        make_folder(self.base, durable=False)
        try:
            with self._adding, sole_writer_of(self.base / "usage"):
                yield
        except InUseError as error:
            raise ShardError(str(error)) from None

    def _usage(self) -> int:
        with suppress(OSError, ValueError):
            text = (self.base / "usage").read_text()
            if text.endswith("\n") and (used := int(text)) >= 0:
                return used
        return self._scan()

    def _write_usage(self, used: int) -> None:
        (self.base / "usage").write_text(f"{max(0, used)}\n")


def _created(path: Path, size: int) -> IO[bytes]:
    """Create a file of a size, and open it for writing."""
    make_folder(path.parent, durable=False)
    file = path.open("wb")
    file.truncate(size)
    return file
