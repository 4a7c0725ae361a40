"""Simulates disks with little free space."""

import errno
import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class _FullDiskFile(io.FileIO):
    space = 0

    def write(self, data):
        _FullDiskFile.space -= len(data)
        if _FullDiskFile.space < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@contextmanager
def space_left(folder: Path, space: int) -> Iterator[None]:
    """Limit the number of bytes that this process can write to files below a folder."""
    open_file = io.open

    def open_on_full_disk(file, mode="r", *arguments, **keywords):
        if "b" in mode and set(mode) & set("wax") and folder in Path(os.fsdecode(file)).parents:
            return _FullDiskFile(file, mode, opener=keywords.get("opener"))
        return open_file(file, mode, *arguments, **keywords)

    _FullDiskFile.space = space
    with pytest.MonkeyPatch.context() as patch:
        # the built-in function, and the names under which Path.open and tarfile call it
        for name in ("builtins.open", "io.open", "tarfile.bltn_open"):
            patch.setattr(name, open_on_full_disk)
        yield


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files that this process and its children write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
