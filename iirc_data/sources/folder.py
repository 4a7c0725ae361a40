"""An image folder ``split/class/*``, on disk or inside a tar that is read without unpacking."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from iirc_data.errors import SourceError
from iirc_data.files import canonical_json
from iirc_data.sources.base import (
    FileStamp,
    Sample,
    Source,
    cannot_read,
    file_stamp,
    is_hidden,
    read_file,
    split_file_name,
)
from iirc_data.sources.tar import TarMember, list_members, read_images

TarIndex: TypeAlias = dict[str, dict[str, list[TarMember]]]
"""Split to class to the class's files, names sorted."""

LAYOUT = "expected <split>/<class>/<image>, for example train/dog/0001.jpg"


def open_folder(path: Path) -> Source:
    """Open an image folder, or the same tree inside a tar.

    Args:
        path: A folder with ``split/class/*``, or an uncompressed ``.tar`` of one.

    Returns:
        The source.

    Raises:
        SourceError: ``path`` is neither.
    """
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return TarFolderSource(path)
    raise SourceError(f"{path} does not exist: give an image folder or a tar of one")


@dataclass(frozen=True)
class FolderSource:
    """An image folder ``root/split/class/*``; hidden files are left out.

    Attributes:
        root: The folder.
        splits: The only splits to look at; by default all folders are splits.
    """

    root: Path
    splits: tuple[str, ...] | None = None
    encoded_here = False

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    def classes(self) -> dict[str, list[str]]:
        """Return for each split the sorted names of its classes.

        Raises:
            SourceError: A file lies where a split or a class should be, or there is no class.
        """
        splits = (
            _folders(self.root) if self.splits is None else [self.root / s for s in self.splits]
        )
        found = {split.name: [folder.name for folder in _folders(split)] for split in splits}
        if not any(found.values()):
            raise SourceError(f"{self.root} holds no classes: {LAYOUT}")
        return found

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of a class's images.

        Raises:
            SourceError: As in :meth:`samples`, but for what only reading a file shows.
        """
        return len(self._images(split, class_name))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a digest of the files' names, sizes and times."""
        folder = self.root / split / class_name
        files = [[name, *file_stamp(f"{folder}/{name}")] for name in _sorted_names(folder)]
        return hashlib.sha256(canonical_json(files)).hexdigest()

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, file names sorted.

        Raises:
            SourceError: The folder is missing or empty, or something in it is not an image file.
        """
        for path, key, extension in self._images(split, class_name):
            yield Sample(key, extension, read_file(path), path)

    def _images(self, split: str, class_name: str) -> list[tuple[str, str, str]]:
        folder = self.root / split / class_name
        paths = [f"{folder}/{name}" for name in _sorted_names(folder)]
        if not paths:
            raise SourceError(f"{folder} holds no images: remove the folder or fill it")
        return [(path, *split_file_name(path.rpartition("/")[2], path)) for path in paths]


def _sorted_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not is_hidden(entry.name))
    except NotADirectoryError as error:
        raise SourceError(f"{folder} is not a folder: {LAYOUT}") from error
    except OSError as error:
        raise cannot_read(folder, error) from error


def _folders(folder: Path) -> list[Path]:
    entries = [folder / name for name in _sorted_names(folder)]
    for path in entries:
        if not path.is_dir():
            raise SourceError(f"{path} is not a folder: {LAYOUT}")
    return entries


@dataclass(frozen=True)
class TarFolderSource:
    """The tree ``split/class/*`` inside an uncompressed tar; hidden files are left out.

    Attributes:
        path: The tar.
    """

    path: Path
    encoded_here = False

    @property
    def name(self) -> str:
        """File name of the tar, without ``.tar``."""
        return self.path.stem

    def classes(self) -> dict[str, list[str]]:
        """Return for each split the sorted names of its classes.

        Raises:
            SourceError: The tar is damaged, compressed, or not laid out as an image folder.
        """
        return {split: sorted(classes) for split, classes in sorted(self._index.items())}

    def weight(self, split: str, class_name: str) -> int:
        """Return the bytes of a class's images."""
        return sum(member.size for member in self._index[split][class_name])

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return size and time of the tar."""
        return str(file_stamp(self.path))

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, file names sorted.

        Raises:
            SourceError: A member is not named like an image, or the tar is cut short.
        """
        return read_images(self.path, self._index[split][class_name])

    @property
    def _index(self) -> TarIndex:
        return _index_tar(self.path, file_stamp(self.path))


@lru_cache(maxsize=1)  # not kept by the source, which travels to a process with every class
def _index_tar(path: Path, stamp: FileStamp) -> TarIndex:
    index: TarIndex = {}
    for member in sorted(list_members(path)):
        parts = member.name.split("/")
        if any(is_hidden(part) for part in parts):
            continue
        if len(parts) != 3:
            raise SourceError(f"{path} holds {member.name!r}: {LAYOUT}")
        files = index.setdefault(parts[0], {}).setdefault(parts[1], [])
        if files and files[-1].name == member.name:
            raise SourceError(f"{path} holds {member.name} twice")
        files.append(member)
    if not index:
        raise SourceError(f"{path} holds no images: {LAYOUT}")
    return index
