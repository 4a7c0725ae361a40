"""Reading parts of a shard.

Shards are not mapped into memory: if a mapped file is truncated or its disk fails, the operating
system kills the process that reads it.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.reading import open_regular


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
        content = np.empty(size, np.uint8)
        done = 0
        try:
            while done < size:  # one pass, for ordinary files
                left = content[done:] if done else content
                if not (n := self._read_into(left, offset + done)):
                    raise ShardError(
                        f"shard {self._path} was truncated while in use: byte {offset + done} is "
                        "missing; copy the shard again"
                    )
                done += n
        except OSError as error:
            raise ShardError(
                f"cannot read shard {self._path}: {error.strerror or error}; check its disk, or "
                "copy the shard again"
            ) from error
        content.flags.writeable = False
        return content

    def will_read(self, offset: int, size: int) -> None:
        """Ask the operating system to read bytes ahead, without waiting for them."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # not every file system supports this
                os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def _read_into(self, content: NDArray[np.uint8], offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [content.data], offset)
        with self._seeking:
            self._file.seek(offset)
            return self._file.readinto(content.data)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class TooManyFilesError(ShardError):
    """A process cannot open another file."""
