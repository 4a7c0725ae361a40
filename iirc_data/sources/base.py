"""The interface of a raw dataset, which sharding reads."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from iirc_data.errors import SourceError
from iirc_data.reading import read_regular, read_text

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
        data: The encoded image, with exactly the bytes of the dataset.
        origin: Path or other name of the image, for error messages.
    """

    key: str
    extension: str
    data: bytes
    origin: str


class Source(Protocol):
    """A raw dataset; small and picklable, so that several processes can read its classes.

    A source that reads files may have an attribute ``inputs``, a tuple of these files and folders,
    so that shards are not written into them.
    """

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def encoded_here(self) -> bool:
        """Whether this program encodes the images, rather than copies them byte for byte."""

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the leaf classes of each split.

        Raises:
            SourceError: The layout of the dataset is wrong.
        """

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images or bytes of a class, without reading the images."""

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a text that changes when the images of a class change, without reading them."""

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield one class's samples in the dataset's own order.

        Raises:
            SourceError: The class has no images, or contains something other than image files.
        """


def file_stamp(path: str | Path) -> FileStamp:
    """Return the size and modification time of a file.

    Raises:
        SourceError: The file is missing or inaccessible.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 -- pathlib is slower
    except OSError as error:
        raise cannot_read(path, error) from error
    return status.st_size, status.st_mtime_ns


def read_file(path: str | Path) -> bytes:
    """Return a file's content.

    Raises:
        SourceError: The file cannot be read.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise cannot_read(path, error) from error


def read_lines(path: str | Path, remedy: str) -> list[str]:
    """Return the lines of an annotation file.

    Args:
        path: The text file.
        remedy: What to do if it is not text, for the error.

    Raises:
        SourceError: The file cannot be read, or is not text.
    """
    try:
        return read_text(path).splitlines()
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:
        raise SourceError(f"{path} is not a text file ({error}): {remedy}") from error


def cannot_read(path: str | Path, error: OSError) -> SourceError:
    """Return the error for a file that the operating system cannot read."""
    return SourceError(f"cannot read {path}: {error.strerror or error}")


def check_exists(path: Path, wanted: str) -> None:
    """Check that the path of a dataset exists.

    Args:
        path: The path that the user gave.
        wanted: What to give instead, for the error.

    Raises:
        SourceError: It does not exist, or is inaccessible.
    """
    try:
        path.stat()
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist: {wanted}") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def split_file_name(name: str, origin: str) -> tuple[str, str]:
    """Split an image's file name into key and lower-case extension.

    Raises:
        SourceError: The extension is not jpg, jpeg or png.
    """
    stem, _, extension = name.rpartition(".")
    if not stem or extension.lower() not in IMAGE_EXTENSIONS:
        raise SourceError(
            f"{origin} does not have the name of an image ({', '.join(IMAGE_EXTENSIONS)}): "
            "convert it, or remove it from the dataset"
        )
    return stem, extension.lower()


def inputs_of(source: Source) -> tuple[Path, ...]:
    """Return the files and folders that a source declares as its inputs."""
    inputs: tuple[Path, ...] = getattr(source, "inputs", ())
    return inputs


def is_hidden(name: str) -> bool:
    """Return whether the operating system made a file (``.DS_Store``, ``Thumbs.db``)."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES
