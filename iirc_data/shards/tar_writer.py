"""Writing one tar, byte for byte as ``webdataset.TarWriter`` does, as fast as the disk takes it."""

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from tarfile import BLOCKSIZE, LENGTH_NAME, PAX_FORMAT, RECORDSIZE, USTAR_FORMAT, TarInfo
from types import TracebackType
from typing import IO, Self

_BATCH_BYTES = 1 << 20
_BATCHES_AHEAD = 4
_SYNC_BYTES = 32 << 20
_MODE = 0o444


class TarWriter:
    """Writes files into a tar; one thread digests what is written, another stores it.

    Time, owner and mode of all members are fixed, so the same files give the same tar. A tar that
    is closed is on the disk, not only in the system's memory.

    Args:
        file: Where to write to; a real file.

    Attributes:
        size: Bytes handed over so far; those of the whole tar once it is closed.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._unsynced = 0
        self._digesting = ThreadPoolExecutor(1, "iirc-digest")
        self._storing = ThreadPoolExecutor(1, "iirc-store")
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._under_way: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exception is None:
                self._put(bytes(2 * BLOCKSIZE))
                self._put(bytes(-self.size % RECORDSIZE))
                self._send()
                self._wait(0)
                self._sync()
        finally:
            self._digesting.shutdown(cancel_futures=True)
            self._storing.shutdown(cancel_futures=True)

    def add(self, name: str, data: bytes) -> int:
        """Add a file.

        Args:
            name: Its name in the tar.
            data: Its content.

        Returns:
            Bytes from the tar's start to the content.

        Raises:
            OSError: An earlier part could not be written.
        """
        header = TarInfo(name)
        header.size = len(data)
        header.mode = _MODE
        # both give the same bytes where both can; the simpler one takes less time
        is_simple = name.isascii() and len(name) <= LENGTH_NAME
        self._put(
            header.tobuf(USTAR_FORMAT if is_simple else PAX_FORMAT, "utf-8", "surrogateescape")
        )
        offset = self.size
        self._put(data)
        self._put(bytes(-len(data) % BLOCKSIZE))
        if self._batch_bytes >= _BATCH_BYTES:
            self._send()
        return offset

    @property
    def sha256(self) -> str:
        """SHA-256 of the closed tar."""
        return self._digest.hexdigest()

    def _put(self, data: bytes) -> None:
        self._batch.append(data)
        self._batch_bytes += len(data)
        self.size += len(data)

    def _send(self) -> None:
        self._wait(2 * (_BATCHES_AHEAD - 1))
        for executor, work in ((self._digesting, self._digest_batch), (self._storing, self._store)):
            self._under_way.append(executor.submit(work, self._batch))
        self._batch, self._batch_bytes = [], 0

    def _wait(self, allowed: int) -> None:
        while len(self._under_way) > allowed:
            self._under_way.popleft().result()

    def _digest_batch(self, batch: list[bytes]) -> None:
        for data in batch:
            self._digest.update(data)

    def _store(self, batch: list[bytes]) -> None:
        for data in batch:
            self._unsynced += self._file.write(data)
        if self._unsynced >= _SYNC_BYTES:  # while the next images are read
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0
