"""A dataset whose annotation files list the images of each class and its superclasses."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from iirc_data.errors import SourceError
from iirc_data.sources.base import FileStamp, Sample, file_stamp, read_lines, split_file_name
from iirc_data.sources.hierarchy import Superclasses
from iirc_data.sources.image_files import ImageFile, fingerprint_of, read_samples, sorted_names

Listing: TypeAlias = Mapping[str, Sequence[str]]
"""Class to the paths of its images below the root, sorted."""


@dataclass(frozen=True)
class ListedSource(ABC):
    """The images that annotation files list; other files beside them are ignored.

    Attributes:
        root: Folder that the listed paths start from.
    """

    root: Path
    encoded_here = False

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folder that is read."""
        return (self.root,)

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the classes with images in each split.

        Raises:
            SourceError: An annotation file is missing, damaged, or contradicts another.
        """
        return {split: sorted(listing) for split, listing in self._listings.items()}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class.

        Raises:
            SourceError: A listed image is missing; but no image is read.
        """
        paths = self._listings[split][class_name]
        folders: dict[str, list[str]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(name)
        for folder, names in folders.items():
            where = self.root / folder
            there = _names_in(where, file_stamp(where))
            if missing := [name for name in names if name not in there]:
                raise SourceError(
                    f"{where} lacks {len(missing)} of {len(names)} images that are listed for "
                    f"class {class_name!r} of split {split} ({', '.join(missing[:3])}): unpack the "
                    "dataset again"
                )
        return len(paths)

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a digest of the names, sizes and modification times of the files."""
        return fingerprint_of(self.root, self._listings[split][class_name])

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, sorted by path.

        Raises:
            SourceError: A file is missing, or does not have the name of an image.
        """
        paths = self._listings[split][class_name]
        return read_samples(map(self._image_file, paths))

    def taxonomy(self) -> Superclasses:
        """Return each superclass with its direct subclasses, from the top down.

        Names are unique, see :func:`~iirc_data.sources.hierarchy.build_hierarchy`.
        """
        return self._content[1]

    def _image_file(self, path: str) -> ImageFile:
        where = f"{self.root}/{path}"
        return ImageFile(where, *split_file_name(path.rpartition("/")[2], where))

    @property
    def _listings(self) -> Mapping[str, Listing]:
        return self._content[0]

    @property
    @abstractmethod
    def _content(self) -> tuple[Mapping[str, Listing], Superclasses]:
        """The listing of each split and the taxonomy; cached outside of the source."""


@lru_cache(maxsize=4)  # one folder may hold the images of all classes
def _names_in(folder: Path, stamp: FileStamp) -> frozenset[str]:
    return frozenset(sorted_names(folder))


def listed_lines(path: Path, remedy: str) -> list[tuple[int, str]]:
    """Return the lines of an annotation file that are neither blank nor comments, with numbers.

    Args:
        path: A text file; comments start with ``#``.
        remedy: What to do if it cannot be read, for the error.

    Raises:
        SourceError: The file is missing, empty, or not text.
    """
    found = [(number, line.strip()) for number, line in enumerate(read_lines(path, remedy), 1)]
    found = [(number, line) for number, line in found if line and not line.startswith("#")]
    if not found:
        raise SourceError(f"{path} lists nothing: {remedy}")
    return found
