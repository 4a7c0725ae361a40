"""Reading parts of a shard.

Shards are not mapped into memory: if a mapped file is truncated or its disk fails, the operating
system kills the process that reads it.
"""

import errno
import os
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.reading import open_regular

_CAN_ANNOUNCE = hasattr(os, "posix_fadvise")


class ShardFile:
    """An open shard, which any number of threads may read.

    The file closes when this object is no longer referenced. So a thread may still read from a
    shard that a cache has dropped, and never reads another file that got the same descriptor.

    Args:
        path: The shard.
        size: Expected size in bytes, from the manifest; None if it was checked before.

    Raises:
        ShardError: The shard cannot be opened, is not a regular file, or has another size.
        TooManyFilesError: The process cannot open another file.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self._path = path
        self._seeking = Lock()
        try:
            self._file = open_regular(path)
            self._descriptor = self._file.fileno()
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise TooManyFilesError(
                    f"cannot read shard {path}: {error.strerror}; allow more with: ulimit -n 16384"
                ) from error
            raise ShardError(f"cannot read shard {path}: {error.strerror or error}") from error
        if size is not None and self.size != size:
            raise ShardError(
                f"shard {path} has {self.size} bytes, the manifest says {size}: copy it again"
            )

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Return bytes of the shard, uint8 (size,), read-only.

        Raises:
            ShardError: The shard ends before these bytes, or cannot be read.
        """
        try:
            content = self._bytes_at(offset, size)
            while (done := len(content)) < size:  # never for ordinary files
                if not (more := self._bytes_at(offset + done, size - done)):
                    raise ShardError(
                        f"shard {self._path} was truncated while in use: byte {offset + done} is "
                        "missing; copy the shard again"
                    )
                content += more
        except OSError as error:
            raise ShardError(
                f"cannot read shard {self._path}: {error.strerror or error}; check its disk, or "
                "copy the shard again"
            ) from error
        return np.frombuffer(content, np.uint8)

    def will_read(self, offset: int, size: int) -> None:
        """Ask the operating system to read bytes ahead, without waiting for them."""
        if _CAN_ANNOUNCE:
            try:
                os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)
            except OSError:
                return  # not every file system supports this

    def _bytes_at(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # not on Windows
            return os.pread(self._descriptor, size, offset)
        with self._seeking:
            self._file.seek(offset)
            return self._file.read(size)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class TooManyFilesError(ShardError):
    """A process cannot open another file."""
