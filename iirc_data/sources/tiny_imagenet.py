"""Tiny ImageNet as it is distributed: nested training folders, one flat folder of validation."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from iirc_data.errors import SourceError
from iirc_data.sources.base import FileStamp, Sample, check_exists, file_stamp, read_lines
from iirc_data.sources.image_files import (
    ImageFile,
    fingerprint_of,
    images_in,
    read_samples,
    sorted_names,
)
from iirc_data.sources.imagenet import check_wordnet_classes

FOLDER = "tiny-imagenet-200"
ANNOTATIONS = "val_annotations.txt"

_AGAIN = f"unpack {FOLDER}.zip again"


def open_tiny_imagenet(path: Path) -> "TinyImageNetSource":
    """Open Tiny ImageNet, unpacked.

    The folder holds ``train/<WordNet id>/images/*.JPEG``, ``val/images/*.JPEG`` and
    ``val/val_annotations.txt``. The test images have no labels and are not read.

    Args:
        path: The folder ``tiny-imagenet-200``, or its parent.

    Returns:
        The source.

    Raises:
        SourceError: The folder does not contain Tiny ImageNet, or lacks a part of it.
    """
    wanted = f"unpack {FOLDER}.zip and give the folder {FOLDER}"
    check_exists(path, wanted)
    root = next((root for root in (path, path / FOLDER) if (root / "train").is_dir()), None)
    if root is None:
        raise SourceError(f"{path} has no folder train/: {wanted}")
    if (root / "val").is_dir() and not (root / "val" / "images").is_dir():
        raise SourceError(
            f"{root}/val has no folder images/ of all validation images: {_AGAIN} if they were "
            "moved into folders"
        )
    source = TinyImageNetSource(root)
    found = source.classes()
    names = set(found["train"])
    if unknown := [name for name in found["val"] if name not in names]:
        raise SourceError(
            f"{root}/val/{ANNOTATIONS} names {len(unknown)} classes that train lacks "
            f"({', '.join(unknown[:5])}): {_AGAIN}"
        )
    check_wordnet_classes(found, str(root), None)
    for name in found["train"]:
        if not (root / "train" / name / "images").is_dir():
            raise SourceError(
                f"{root}/train/{name} has no folder images/: {_AGAIN}; a tree train/<class>/* is "
                "read by iirc data shard folder"
            )
    return source


@dataclass(frozen=True)
class TinyImageNetSource:
    """Tiny ImageNet; bounding boxes and the unlabelled test images are ignored.

    Attributes:
        root: The folder ``tiny-imagenet-200``.
    """

    root: Path
    encoded_here = False

    @property
    def name(self) -> str:
        """``"tiny_imagenet"``."""
        return "tiny_imagenet"

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folders that are read."""
        return (self.root / "train", self.root / "val")

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted WordNet ids of each split.

        Raises:
            SourceError: A folder or the annotations are missing, or the annotations do not match
                the validation images.
        """
        return {"train": sorted_names(self.root / "train"), "val": sorted(self._val_images)}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class.

        Raises:
            SourceError: See :meth:`samples`; but no image is read.
        """
        return len(self._images(split, class_name))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a digest of the names, sizes and modification times of the files."""
        images = self._images(split, class_name)
        return fingerprint_of(self._folder(split, class_name), [Path(i.path).name for i in images])

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, sorted by file name.

        Raises:
            SourceError: The class has no images, or contains something other than image files.
        """
        return read_samples(self._images(split, class_name))

    def _folder(self, split: str, class_name: str) -> Path:
        return self.root / split / (class_name if split == "train" else "") / "images"

    def _images(self, split: str, class_name: str) -> list[ImageFile]:
        if split == "train":
            return images_in(self._folder(split, class_name))
        return self._val_images[class_name]

    @property
    def _val_images(self) -> dict[str, list[ImageFile]]:
        stamps = file_stamp(self.root / "val" / ANNOTATIONS), file_stamp(self.root / "val/images")
        return _list_val_images(self.root / "val", stamps)


@lru_cache(maxsize=1)  # not kept in the source, which is sent to a process with every class
def _list_val_images(val: Path, stamps: tuple[FileStamp, ...]) -> dict[str, list[ImageFile]]:
    labels = _read_annotations(val / ANNOTATIONS)
    images: dict[str, list[ImageFile]] = {}
    for image in images_in(val / "images"):
        name = Path(image.path).name
        if name not in labels:
            raise SourceError(f"{image.path} is not in {val / ANNOTATIONS}: remove it, or {_AGAIN}")
        images.setdefault(labels.pop(name), []).append(image)
    if labels:
        raise SourceError(
            f"{val}/images lacks {len(labels)} images of {ANNOTATIONS} "
            f"({', '.join(list(labels)[:3])}): {_AGAIN}"
        )
    return images


def _read_annotations(path: Path) -> dict[str, str]:
    """Return the WordNet id of each image; lines are ``name wnid x0 y0 x1 y1``, with tabs."""
    labels: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, _AGAIN), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 6:
            raise SourceError(
                f"{path}, line {number}: expected an image, its class and four numbers, got "
                f"{line[:80]!r}: {_AGAIN}"
            )
        name, wordnet_id = parts[:2]
        if name in labels:
            raise SourceError(f"{path}, line {number}: {name} occurs twice: {_AGAIN}")
        labels[name] = wordnet_id
    return labels
