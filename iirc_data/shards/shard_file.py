"""Reading parts of a shard.

Shards are not mapped into memory: if a mapped file is cut, or its disk fails, the operating system
kills the process that looks at it.
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
    """A shard that is open for reading, by any number of threads.

    The file closes when nothing refers to this object: a thread may go on reading from a shard that
    a cache has dropped, and never reads from another file that was given the same descriptor.

    Args:
        path: The shard.
        size: Its bytes, as the manifest gives them; None where they were checked before.

    Raises:
        ShardError: It cannot be opened or has another size.
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
            ShardError: The shard ends before them, or cannot be read.
        """
        content = np.empty(size, np.uint8)
        done = 0
        try:
            while done < size:  # once, for ordinary files
                left = content[done:] if done else content
                if not (n := self._read_into(left, offset + done)):
                    raise ShardError(
                        f"shard {self._path} was cut while in use: byte {offset + done} is not "
                        "there any more; copy the shard again"
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
        """Ask the operating system to bring bytes into memory, and do not wait for them."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # a file system may know no such advice
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
