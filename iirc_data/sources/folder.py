"""An image folder ``split/class/*``, on disk or inside a tar that is read without unpacking."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from iirc_data.errors import SourceError
from iirc_data.sources.base import IMAGE_EXTENSIONS, Sample, Source

TarIndex: TypeAlias = dict[str, dict[str, dict[str, tuple[int, int]]]]
"""Split to class to file name to (offset, size) in the tar."""

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


def split_file_name(name: str, origin: str) -> tuple[str, str]:
    """Split an image's file name into key and lower-case extension.

    Raises:
        SourceError: The extension is none of jpg, jpeg, png.
    """
    stem, dot, extension = name.rpartition(".")
    if not dot or extension.lower() not in IMAGE_EXTENSIONS:
        raise SourceError(
            f"{origin} is not named like an image ({', '.join(IMAGE_EXTENSIONS)}): "
            "remove it from the dataset"
        )
    return stem, extension.lower()


def is_hidden(name: str) -> bool:
    """Tell whether a name is one of the operating system's own (``.DS_Store``, ``._x``)."""
    return name.startswith(".")


@dataclass(frozen=True)
class FolderSource:
    """An image folder ``root/split/class/*``; hidden files are left out.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    def classes(self) -> dict[str, list[str]]:
        """Return for each split the sorted names of its classes.

        Raises:
            SourceError: A file lies where a split or a class should be, or there is no class.
        """
        found = {
            split.name: [folder.name for folder in _folders(split)] for split in _folders(self.root)
        }
        if not any(found.values()):
            raise SourceError(f"{self.root} holds no classes: {LAYOUT}")
        return found

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, file names sorted.

        Raises:
            SourceError: Something in the folder is not an image file.
        """
        for path in _sorted(self.root / split / class_name):
            if not path.is_file():
                raise SourceError(f"{path} is not a file: {LAYOUT}")
            key, extension = split_file_name(path.name, str(path))
            yield Sample(key, extension, path.read_bytes(), str(path))


def _sorted(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if not is_hidden(path.name)), key=lambda p: p.name
    )


def _folders(folder: Path) -> list[Path]:
    entries = _sorted(folder)
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

    @property
    def name(self) -> str:
        """File name of the tar, without ``.tar``."""
        return self.path.stem

    @cached_property
    def _index(self) -> TarIndex:
        index: TarIndex = {}
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    split, class_name, file_name = self._split_name(member)
                    if is_hidden(file_name):
                        continue
                    files = index.setdefault(split, {}).setdefault(class_name, {})
                    if file_name in files:
                        raise SourceError(f"{self.path} holds {member.name} twice")
                    files[file_name] = (member.offset_data, member.size)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(
                f"{self.path} is not a readable, uncompressed tar: {error}"
            ) from error
        if not index:
            raise SourceError(f"{self.path} holds no images: {LAYOUT}")
        return index

    def _split_name(self, member: tarfile.TarInfo) -> tuple[str, str, str]:
        parts = PurePosixPath(member.name).parts
        if parts and parts[0] == ".":
            parts = parts[1:]
        if not member.isreg() or len(parts) != 3 or ".." in parts or member.name.startswith("/"):
            raise SourceError(f"{self.path} holds {member.name!r}: {LAYOUT}")
        return parts[0], parts[1], parts[2]

    def classes(self) -> dict[str, list[str]]:
        """Return for each split the sorted names of its classes.

        Raises:
            SourceError: The tar is damaged, compressed, or not laid out as an image folder.
        """
        return {split: sorted(classes) for split, classes in sorted(self._index.items())}

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, file names sorted.

        Raises:
            SourceError: A member is not named like an image, or the tar is cut short.
        """
        with self.path.open("rb") as file:
            for name, (offset, size) in sorted(self._index[split][class_name].items()):
                origin = f"{self.path}:{split}/{class_name}/{name}"
                key, extension = split_file_name(name, origin)
                file.seek(offset)
                data = file.read(size)
                if len(data) != size:
                    raise SourceError(f"{origin} is cut short: the tar is incomplete")
                yield Sample(key, extension, data, origin)
