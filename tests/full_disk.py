"""Disks with little space left."""

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
    """Let only so many bytes be written to the files that this process opens below a folder."""
    open_file = io.open

    def open_on_full_disk(file, mode="r", *arguments, **keywords):
        is_binary_writing = "b" in mode and set(mode) & set("wax")
        is_below = is_binary_writing and folder in Path(os.fsdecode(file)).parents
        if is_below and "opener" not in keywords:  # a temporary file opens its folder in that way
            return _FullDiskFile(file, mode)
        return open_file(file, mode, *arguments, **keywords)

    _FullDiskFile.space = space
    with pytest.MonkeyPatch.context() as patch:
        # the built-in one, and those that Path.open and tarfile call
        for name in ("builtins.open", "io.open", "tarfile.bltn_open"):
            patch.setattr(name, open_on_full_disk)
        yield


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, in this process and those that it starts."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
