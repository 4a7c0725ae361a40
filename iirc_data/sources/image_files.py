"""The image files of one folder: their names, sorted, and their bytes."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from iirc_data.errors import SourceError
from iirc_data.files import canonical_json
from iirc_data.reading import kind_of
from iirc_data.sources.base import (
    Sample,
    cannot_read,
    file_stamp,
    is_hidden,
    read_file,
    split_file_name,
)

LAYOUT = "expected <split>/<class>/<image>, for example train/dog/0001.jpg"
FILL_OR_REMOVE = "remove the folder or fill it"
_LINK_TO_NOTHING = "a broken link"


class ImageFile(NamedTuple):
    """An image file of a folder.

    Attributes:
        path: Path of the file.
        key: File name without extension.
        extension: Lower-case extension.
    """

    path: str
    key: str
    extension: str


def images_in(folder: Path) -> list[ImageFile]:
    """Return the images of a folder, sorted by file name; hidden files are ignored.

    Raises:
        SourceError: The folder is missing or empty, or contains something other than image files.
    """
    images = []
    for entry in _sorted_entries(folder):
        path = f"{folder}/{entry.name}"
        if not entry.is_file(follow_symlinks=False) and (kind := _kind(entry)) is not None:
            raise SourceError(f"{path} is {kind}, not an image: {_remedy(kind, folder)}")
        images.append(ImageFile(path, *split_file_name(entry.name, path)))
    if not images:
        raise SourceError(f"{folder} holds no images: {FILL_OR_REMOVE}")
    return images


def read_samples(images: Iterable[ImageFile]) -> Iterator[Sample]:
    """Yield images with their bytes.

    Raises:
        SourceError: A file cannot be read.
    """
    for path, key, extension in images:
        yield Sample(key, extension, read_file(path), path)


def fingerprint_of(folder: Path, names: Iterable[str]) -> str:
    """Return a digest of the names, sizes and modification times of files of a folder."""
    files = [[name, *file_stamp(f"{folder}/{name}")] for name in names]
    return hashlib.sha256(canonical_json(files)).hexdigest()


def sorted_names(folder: Path) -> list[str]:
    """Return the names in a folder, without hidden files.

    Raises:
        SourceError: The folder cannot be read, or is none.
    """
    return [entry.name for entry in _sorted_entries(folder)]


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_hidden(entry.name)]
    except NotADirectoryError as error:
        raise SourceError(f"{folder} is not a folder: {LAYOUT}") from error
    except OSError as error:
        raise cannot_read(folder, error) from error
    return sorted(found, key=lambda entry: entry.name)


def _kind(entry: os.DirEntry[str]) -> str | None:
    """Return the kind of an entry or of a link's target; None for a regular file."""
    try:
        return kind_of(entry.stat().st_mode)
    except OSError:
        return _LINK_TO_NOTHING


def _remedy(kind: str, folder: Path) -> str:
    if kind == kind_of(stat.S_IFDIR):
        return f"{LAYOUT}; move its images up into {folder}"
    return "remove it from the dataset"
