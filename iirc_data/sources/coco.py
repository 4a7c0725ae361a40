"""Annotations in the format of COCO: images, categories, and the category of each image."""

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import SourceError
from iirc_data.reading import open_regular
from iirc_data.sources.base import cannot_read


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """The content of an annotation file, in some 60 bytes per image.

    Attributes:
        categories: The categories as they are in the file, with all their fields.
        image_category: int64 (N,), id of the category of each image, in the order of the file.
        folders: The folders of the images.
        image_folder: int32 (N,), position in ``folders`` of each image's folder.
        names: All file names, one after the other, in UTF-8.
        name_ends: int64 (N,), end of each image's name in ``names``.
    """

    categories: list[dict[str, Any]]
    image_category: NDArray[np.int64]
    folders: list[str]
    image_folder: NDArray[np.int32]
    names: bytes
    name_ends: NDArray[np.int64]

    def path(self, image: int) -> str:
        """Return the path of an image, as the file gives it."""
        start = self.name_ends[image - 1] if image else 0
        name = self.names[start : self.name_ends[image]].decode()
        return f"{self.folders[self.image_folder[image]]}/{name}".removeprefix("/")


@dataclass(frozen=True, eq=False)
class CocoListing(Mapping[str, list[str]]):
    """The sorted paths of the images of each class; they are put together when asked for.

    Attributes:
        annotations: The annotations.
        class_of: Name of the class of each category.
    """

    annotations: CocoAnnotations
    class_of: Mapping[int, str]

    def __getitem__(self, class_name: str) -> list[str]:
        return sorted(map(self.annotations.path, self._images[class_name].tolist()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def _images(self) -> dict[str, NDArray[np.int64]]:
        of_image = self.annotations.image_category
        order = np.argsort(of_image, kind="stable")
        categories, starts = np.unique(of_image[order], return_index=True)
        parts = np.split(order, starts[1:]) if len(starts) else []
        return {
            self.class_of[category]: part
            for category, part in zip(categories.tolist(), parts, strict=True)
        }


def read_coco(path: Path) -> CocoAnnotations:
    """Read an annotation file of any size; each image has one annotation.

    Args:
        path: A JSON file with the arrays ``images`` (``id``, ``file_name``), ``annotations``
            (``image_id``, ``category_id``) and ``categories``. Other arrays are ignored.

    Raises:
        SourceError: The file cannot be read, has another layout, or contradicts itself; or ijson
            is not installed.
    """
    images, annotations = _Images(path), _Annotations()
    categories: list[dict[str, Any]] = []
    readers: dict[str, Callable[[dict[str, Any]], None]] = {
        "images": images.add,
        "annotations": annotations.add,
        "categories": categories.append,
    }
    for key, read in readers.items():
        n_elements = 0
        for element in _elements(path, key):
            n_elements += 1
            try:
                read(element)
            except (KeyError, TypeError, AttributeError, OverflowError) as error:
                raise SourceError(
                    f"{path}: {key} contains {str(element)[:80]!r}, expected an object with "
                    f"{_FIELDS[key]}: {_LAYOUT}"
                ) from error
        if not n_elements:
            raise SourceError(f"{path} has no {key}: {_LAYOUT}")
    return CocoAnnotations(
        categories,
        _category_of_each(images.ids, annotations, path),
        list(images.folders),
        np.array(images.folder, np.int32),
        bytes(images.names),
        np.array(images.ends, np.int64),
    )


def _elements(path: Path, key: str) -> Iterator[Any]:
    """Yield the elements of an array of a JSON object; only one is in memory at a time."""
    try:
        import ijson
    except ImportError as error:
        raise SourceError(
            f"reading {path} needs ijson: pip install 'iirc-pipeline[inaturalist]'"
        ) from error
    try:
        with open_regular(path) as file:
            yield from ijson.items(file, f"{key}.item", use_float=True)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ijson.JSONError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{path} is not valid JSON ({reason}): download it again") from error


_FIELDS = {
    "images": "id and file_name",
    "annotations": "image_id and category_id",
    "categories": "id",
}
_LAYOUT = "expected annotations in the format of COCO, as iNaturalist publishes them"


class _Images:
    """Columns that grow by one image at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ids = array("q")
        self.folders: dict[str, int] = {}
        self.folder = array("i")
        self.names = bytearray()
        self.ends = array("q")

    def add(self, image: dict[str, Any]) -> None:
        self.ids.append(image["id"])
        folder, _, name = image["file_name"].rpartition("/")
        number = self.folders.get(folder)
        if number is None:
            if folder.startswith("/") or not {".", ".."}.isdisjoint(folder.split("/")):
                raise SourceError(
                    f"{self._path} lists the image {image['file_name']!r}, which is outside of the "
                    "dataset's folder: download it again"
                )
            number = self.folders.setdefault(folder, len(self.folders))
        self.folder.append(number)
        self.names += name.encode()
        self.ends.append(len(self.names))


class _Annotations:
    """Columns that grow by one annotation at a time."""

    def __init__(self) -> None:
        self.image_ids = array("q")
        self.category_ids = array("q")

    def add(self, annotation: dict[str, Any]) -> None:
        self.image_ids.append(annotation["image_id"])
        self.category_ids.append(annotation["category_id"])


def _category_of_each(
    image_ids: "array[int]", annotations: _Annotations, path: Path
) -> NDArray[np.int64]:
    ids = np.array(image_ids, np.int64)
    annotated = np.array(annotations.image_ids, np.int64)
    by_id, by_annotated = np.argsort(ids), np.argsort(annotated)
    for numbers, what in ((ids[by_id], "images"), (annotated[by_annotated], "annotations")):
        if (twice := numbers[1:][numbers[1:] == numbers[:-1]]).size:
            raise SourceError(f"{path}: {what} lists image {twice[0]} twice: download it again")
    if (one_sided := np.setxor1d(ids, annotated, assume_unique=True)).size:
        raise SourceError(
            f"{path}: {one_sided.size:,} images are in only one of images and annotations, the "
            f"first is image {one_sided[0]}: download it again"
        )
    category_of = np.empty(len(ids), np.int64)
    category_of[by_id] = np.array(annotations.category_ids, np.int64)[by_annotated]
    return category_of
