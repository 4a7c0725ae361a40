"""Files in a cache: when they were last used, and whether their writers are dead."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from iirc_data.files import writer_name

_STALE = 3600.0  # seconds without a change, after which the writer of a partial file is dead


class CachedFile(NamedTuple):
    """A file in the cache.

    Attributes:
        path: The file.
        bytes: Its size.
        used: When it was last used, in nanoseconds.
    """

    path: Path
    bytes: int
    used: int


def files_below(folder: Path) -> Iterator[CachedFile]:
    """Yield the files below a folder; what disappears meanwhile is left out."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(Path(entry.path))
            else:
                status = entry.stat()
                yield CachedFile(Path(entry.path), status.st_size, status.st_mtime_ns)


def is_stale(file: CachedFile) -> bool:
    """Return whether the writer of a partial file is dead."""
    if file.used / 1e9 < time.time() - _STALE:
        return True
    host = re.escape(writer_name().rsplit("-", 2)[0])
    match = re.search(rf"\.{host}-\d+-(\d+)\.partial$", file.path.name)
    if match is None or os.name == "nt":
        return False
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False
