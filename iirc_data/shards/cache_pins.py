"""Which cached files running epochs need next, in this process and in others."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from iirc_data.files import write_atomically
from iirc_data.shards.cache_files import files_below

_FOLDER = ".pins"
_LAST = 60.0  # seconds
_SECONDS_BETWEEN_ANNOUNCEMENTS = 1.0


class Pins:
    """The pinned files of a cache.

    Each process lists its own in a file. The lists are a courtesy: they are up to a second old, and
    those of a killed process count for a minute.

    Args:
        base: The cache.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._is_own: Callable[[Path], bool] = lambda path: False
        self._own: Callable[[], Iterable[Path]] = tuple
        self._file = base / _FOLDER / uuid4().hex
        self._announced = float("-inf")

    def pin(self, is_pinned: Callable[[Path], bool], paths: Callable[[], Iterable[Path]]) -> None:
        """Pin files of this process.

        Args:
            is_pinned: Returns whether a file is needed.
            paths: Returns the files that are needed.
        """
        self._is_own, self._own = is_pinned, paths

    def is_own(self, path: Path) -> bool:
        """Return whether this process needs a file next."""
        return self._is_own(path)

    def announce(self) -> None:
        """Tell other processes, at most once a second, which files this one needs next."""
        if time.monotonic() < self._announced + _SECONDS_BETWEEN_ANNOUNCEMENTS:
            return
        self._announced = time.monotonic()
        text = "\n".join(path.relative_to(self._base).as_posix() for path in self._own())
        with suppress(OSError), write_atomically(self._file, durable=False) as file:
            file.write(text.encode(errors="surrogateescape"))

    def withdraw(self) -> None:
        """Tell other processes that this one needs no file next."""
        self._announced = float("-inf")
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def everywhere(self) -> set[Path]:
        """Return the files that running epochs of all processes need next."""
        found: set[Path] = set(self._own())
        for file in files_below(self._base / _FOLDER):
            if file.path == self._file:
                continue
            with suppress(OSError, ValueError):
                if file.used / 1e9 > time.time() - _LAST:
                    lines = file.path.read_text(errors="surrogateescape").splitlines()
                    found.update(self._base / line for line in lines)
                else:
                    file.path.unlink()
        return found
