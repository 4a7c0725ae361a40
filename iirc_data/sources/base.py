"""What a raw dataset must offer to be sharded."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from iirc_data.errors import SourceError
from iirc_data.reading import open_regular

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")

_SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "lost+found"})

FileStamp: TypeAlias = tuple[int, int]
"""Size in bytes and modification time in nanoseconds of a file."""


@dataclass(frozen=True)
class Sample:
    """One raw image.

    Attributes:
        key: Name of the image within its class and split, without extension.
        extension: ``"jpg"``, ``"jpeg"`` or ``"png"``.
        data: The encoded image, byte for byte as the dataset has it.
        origin: Where it came from, for errors.
    """

    key: str
    extension: str
    data: bytes
    origin: str


class Source(Protocol):
    """A raw dataset; small and picklable, so that classes can be read by several processes.

    A source that reads from paths may have an attribute ``inputs``, a tuple of these files and
    folders: shards are not written into them.
    """

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def encoded_here(self) -> bool:
        """Whether images are encoded by this program, not copied byte for byte."""

    def classes(self) -> dict[str, list[str]]:
        """Return for each split the sorted names of its leaf classes.

        Raises:
            SourceError: The dataset is not laid out as it should be.
        """

    def weight(self, split: str, class_name: str) -> int:
        """Return the images or bytes of a class, whichever is known without reading images."""

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a text that changes with the class's images; no image is read for it."""

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield one class's samples in the dataset's own order.

        Raises:
            SourceError: The class has no images, or something that is no image file.
        """


def file_stamp(path: str | Path) -> FileStamp:
    """Return what changes with a file's content, without reading it.

    Raises:
        SourceError: The file cannot be reached.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 -- pathlib takes longer than the system
    except OSError as error:
        raise cannot_read(path, error) from error
    return status.st_size, status.st_mtime_ns


def read_file(path: str | Path) -> bytes:
    """Return a file's content.

    Raises:
        SourceError: The file cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.readall()
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: str | Path, error: OSError) -> SourceError:
    """Return the error for a file that the operating system does not give."""
    return SourceError(f"cannot read {path}: {error.strerror or error}")


def split_file_name(name: str, origin: str) -> tuple[str, str]:
    """Split an image's file name into key and lower-case extension.

    Raises:
        SourceError: The extension is none of jpg, jpeg, png.
    """
    stem, _, extension = name.rpartition(".")
    if not stem or extension.lower() not in IMAGE_EXTENSIONS:
        raise SourceError(
            f"{origin} is not named like an image ({', '.join(IMAGE_EXTENSIONS)}): "
            "convert it, or remove it from the dataset"
        )
    return stem, extension.lower()


def inputs_of(source: Source) -> tuple[Path, ...]:
    """Return the files and folders that a source reads from, as far as it says."""
    inputs: tuple[Path, ...] = getattr(source, "inputs", ())
    return inputs


def is_hidden(name: str) -> bool:
    """Tell whether a name is one of the operating system's own (``.DS_Store``, ``Thumbs.db``)."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES
