"""An image folder ``split/class/*``, on disk or in a tar, which is read without unpacking."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from iirc_data.errors import SourceError
from iirc_data.reading import kind_of
from iirc_data.sources.base import FileStamp, Sample, Source, check_exists, file_stamp, is_hidden
from iirc_data.sources.image_files import (
    FILL_OR_REMOVE,
    LAYOUT,
    fingerprint_of,
    images_in,
    read_samples,
    sorted_names,
)
from iirc_data.sources.tar import TarMember, list_members_and_folders, read_images

TarIndex: TypeAlias = dict[str, dict[str, list[TarMember]]]
"""Split to class to the files of the class, sorted by name; then its folders, as ``NAME/``."""


def open_folder(path: Path) -> Source:
    """Open an image folder, or a tar of one.

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
    wanted = "give an image folder or a tar of one"
    check_exists(path, wanted)
    raise SourceError(f"{path} is {kind_of(path.stat().st_mode)}: {wanted}")


@dataclass(frozen=True)
class FolderSource:
    """An image folder ``root/split/class/*``; hidden files are ignored.

    Attributes:
        root: The folder.
        splits: The splits to read; by default every folder is a split.
    """

    root: Path
    splits: tuple[str, ...] | None = None
    encoded_here = False

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folders that are read: the root, the splits, and classes that are links.

        Raises:
            SourceError: See :meth:`classes`.
        """
        splits = self._split_folders()
        links = [path for split in splits for path in _folders(split) if path.is_symlink()]
        whole = [self.root] if self.splits is None else []
        return (*whole, *splits, *links)

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the classes of each split.

        Raises:
            SourceError: There is a file in place of a split or a class, or a split without class.
        """
        splits = self._split_folders()
        found = {split.name: [folder.name for folder in _folders(split)] for split in splits}
        if not any(found.values()):
            raise SourceError(f"{self.root} holds no classes: {LAYOUT}")
        if empty := [split for split, names in found.items() if not names]:
            raise SourceError(f"{self.root / empty[0]} holds no classes: {FILL_OR_REMOVE}")
        return found

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class.

        Raises:
            SourceError: See :meth:`samples`; but no file is read.
        """
        return len(images_in(self.root / split / class_name))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a digest of the names, sizes and modification times of the files."""
        folder = self.root / split / class_name
        return fingerprint_of(folder, sorted_names(folder))

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, sorted by file name.

        Raises:
            SourceError: The folder is missing or empty, or contains something other than image
                files.
        """
        yield from read_samples(images_in(self.root / split / class_name))

    def _split_folders(self) -> list[Path]:
        return _folders(self.root) if self.splits is None else [self.root / s for s in self.splits]


def _folders(folder: Path) -> list[Path]:
    entries = [folder / name for name in sorted_names(folder)]
    for path in entries:
        if not path.is_dir():
            raise SourceError(f"{path} is not a folder: {LAYOUT}")
    return entries


@dataclass(frozen=True)
class TarFolderSource:
    """The tree ``split/class/*`` in an uncompressed tar; hidden files are ignored.

    Attributes:
        path: The tar.
    """

    path: Path
    encoded_here = False

    @property
    def name(self) -> str:
        """File name of the tar, without ``.tar``."""
        return self.path.stem

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The tar."""
        return (self.path,)

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the classes of each split.

        Raises:
            SourceError: The tar is damaged or compressed, or does not contain an image folder.
        """
        return {split: sorted(classes) for split, classes in sorted(self._index.items())}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of bytes of the images of a class."""
        return sum(member.size for member in self._members(split, class_name))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return the size and modification time of the tar."""
        return str(file_stamp(self.path))

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, sorted by file name.

        Raises:
            SourceError: The class is empty or contains a folder, a member does not have the name
                of an image, or the tar is truncated.
        """
        return read_images(self.path, self._members(split, class_name))

    def _members(self, split: str, class_name: str) -> list[TarMember]:
        members = self._index[split][class_name]
        if not members:
            raise _no_images_in(self.path, f"{split}/{class_name}")
        for member in members:
            if member.name.count("/") > 2:
                raise _misplaced(self.path, member.name)
        return members

    @property
    def _index(self) -> TarIndex:
        return _index_tar(self.path, file_stamp(self.path))


@lru_cache(maxsize=1)  # not kept in the source, which is sent to a process with every class
def _index_tar(path: Path, stamp: FileStamp) -> TarIndex:
    index: TarIndex = {}
    members, folders = list_members_and_folders(path)
    for member in sorted(members):
        parts = member.name.split("/")
        if any(is_hidden(part) for part in parts):
            continue
        if len(parts) < 3:
            raise _misplaced(path, member.name)
        files = index.setdefault(parts[0], {}).setdefault(parts[1], [])
        if files and files[-1].name == member.name:
            raise SourceError(f"{path} holds {member.name} twice")
        files.append(member)
    if not index:
        raise SourceError(f"{path} holds no images: {LAYOUT}")
    for folder in sorted(filter(None, folders), key=lambda name: (-name.count("/"), name)):
        split, *names = folder.split("/")
        if any(is_hidden(part) for part in (split, *names)):
            continue
        if names:  # what is wrong within a class is an error where the class is read, as on disk
            members = index.setdefault(split, {}).setdefault(names[0], [])
            if len(names) > 1:
                members.append(TarMember(f"{folder}/", 0, 0))
        elif split not in index:
            raise _no_images_in(path, folder)
    return index


def _misplaced(path: Path, name: str) -> SourceError:
    return SourceError(f"{path} holds {name!r}: {LAYOUT}")


def _no_images_in(path: Path, folder: str) -> SourceError:
    return SourceError(f"{path}: the folder {folder!r} holds no images: {FILL_OR_REMOVE}")
