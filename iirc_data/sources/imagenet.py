"""ImageNet 2012: the folder tree, or the original tars, which are read without unpacking.

Both give the same samples in the same order, and therefore the same shards.
"""

import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from iirc_data.errors import SourceError
from iirc_data.sources.base import FileStamp, Sample, Source, check_exists, file_stamp
from iirc_data.sources.folder import FolderSource
from iirc_data.sources.tar import TarMember, list_members, read_compressed, read_images

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_GROUND_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
_SPLITS = ("train", "val")
_WORDNET_ID = re.compile(r"n\d{8}")


def open_imagenet(folder: Path, classes: Collection[str] | None = None) -> Source:
    """Open ImageNet.

    Args:
        folder: Folder with ``train/<WordNet id>/*`` and ``val/<WordNet id>/*``, or with the files
            ``ILSVRC2012_img_train.tar``, ``ILSVRC2012_img_val.tar`` and
            ``ILSVRC2012_devkit_t12.tar.gz``.
        classes: The classes to use, which both splits must have; by default all.

    Returns:
        The source.

    Raises:
        SourceError: The folder has neither, or does not contain ImageNet.
    """
    if all((folder / split).is_dir() for split in _SPLITS):
        return open_imagenet_tree(folder, classes)
    names = (TRAIN_TAR, VAL_TAR, DEVKIT)
    check_exists(folder, f"give a folder with train/ and val/, or with {', '.join(names)}")
    if missing := [name for name in names if not (folder / name).exists()]:
        raise SourceError(
            f"{folder} has neither the folders train/ and val/ nor all of the original files: "
            f"{', '.join(missing)} missing"
        )
    train, val, devkit = (folder / name for name in names)
    return open_imagenet_tars(train, val, devkit, classes)


def open_imagenet_tree(root: Path, classes: Collection[str] | None = None) -> FolderSource:
    """Open ImageNet as folders ``train/<WordNet id>/*`` and ``val/<WordNet id>/*``.

    Args:
        root: Parent of the two folders.
        classes: See :func:`open_imagenet`.

    Raises:
        SourceError: The layout of the folders is wrong.
    """
    source = FolderSource(root, _SPLITS)
    check_wordnet_classes(source.classes(), str(root), classes)
    return source


def open_imagenet_tars(
    train: Path, val: Path, devkit: Path, classes: Collection[str] | None = None
) -> "ImageNetTars":
    """Open ImageNet as the three files that its authors publish.

    Args:
        train: ``ILSVRC2012_img_train.tar``.
        val: ``ILSVRC2012_img_val.tar``.
        devkit: ``ILSVRC2012_devkit_t12.tar.gz``, which has the labels of the validation images.
        classes: See :func:`open_imagenet`.

    Raises:
        SourceError: A file is missing or damaged, or the files do not match each other.
    """
    source = ImageNetTars(train, val, devkit)
    check_wordnet_classes(source.classes(), f"{train} and {val}", classes)
    return source


def check_wordnet_classes(
    found: dict[str, list[str]], where: str, wanted: Collection[str] | None
) -> None:
    """Check that classes have WordNet ids, and that both splits have the same ones.

    Args:
        found: Split to its classes.
        where: Name of the dataset in error messages.
        wanted: The classes to check; None for all.

    Raises:
        SourceError: A class has another name, or is in one split only.
    """
    used = {
        split: [name for name in names if wanted is None or name in wanted]
        for split, names in found.items()
    }
    for split, names in used.items():
        if strange := [name for name in names if not _WORDNET_ID.fullmatch(name)]:
            raise SourceError(
                f"{where}: {strange[0]!r} in {split} is not a WordNet id like 'n01440764'; for "
                "other datasets use iirc data shard folder"
            )
    train, val = map(set, used.values())
    if train != val:
        one_sided = sorted(train ^ val)
        raise SourceError(
            f"{where}: {len(one_sided)} classes are in only one of train and val: "
            f"{', '.join(one_sided[:5])}"
        )


@dataclass(frozen=True)
class ImageNetTars:
    """The original tars: a training tar with a tar per class, and a flat validation tar.

    Attributes:
        train: ``ILSVRC2012_img_train.tar``.
        val: ``ILSVRC2012_img_val.tar``.
        devkit: ``ILSVRC2012_devkit_t12.tar.gz``.
    """

    train: Path
    val: Path
    devkit: Path
    encoded_here = False

    @property
    def name(self) -> str:
        """``"imagenet"``."""
        return "imagenet"

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The three files."""
        return (self.train, self.val, self.devkit)

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted WordNet ids of each split.

        Raises:
            SourceError: A file is missing or damaged, or the files do not match each other.
        """
        return {"train": sorted(self._class_tars), "val": sorted(self._val_images)}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of bytes of the images of a class."""
        if split == "train":
            return self._class_tars[class_name].size
        return sum(member.size for member in self._val_images[class_name])

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return the sizes and modification times of the files with this split."""
        files = [self.train] if split == "train" else [self.val, self.devkit]
        return str([file_stamp(path) for path in files])

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, sorted by file name.

        Raises:
            SourceError: A tar is damaged or truncated, or contains something other than images.
        """
        path = self.train if split == "train" else self.val
        members = self._members(split, class_name)
        if not members:
            raise SourceError(f"{path}: class {class_name} has no images: download it again")
        return read_images(path, members)

    def _members(self, split: str, class_name: str) -> list[TarMember]:
        if split == "train":
            class_tar = self._class_tars[class_name]
            return sorted(list_members(self.train, class_tar.offset, class_tar.size))
        return self._val_images[class_name]

    @property
    def _class_tars(self) -> dict[str, TarMember]:
        return _list_class_tars(self.train, file_stamp(self.train))

    @property
    def _val_images(self) -> dict[str, list[TarMember]]:
        stamps = (file_stamp(self.val), file_stamp(self.devkit))
        return _list_val_images(self.val, self.devkit, stamps)


# Cached per process, not in the source, which is sent to a process with every class.
@lru_cache(maxsize=1)
def _list_class_tars(path: Path, stamp: FileStamp) -> dict[str, TarMember]:
    members = list_members(path)
    for member in members:
        if not member.name.endswith(".tar") or "/" in member.name:
            raise SourceError(
                f"{path} holds {member.name!r}, expected a tar per class, like n01440764.tar"
            )
    return {member.name.removesuffix(".tar"): member for member in members}


@lru_cache(maxsize=1)
def _list_val_images(
    path: Path, devkit: Path, stamps: tuple[FileStamp, ...]
) -> dict[str, list[TarMember]]:
    members = sorted(list_members(path))
    for member in members:
        if "/" in member.name:
            raise SourceError(f"{path} holds {member.name!r}, expected images without folders")
    wordnet_ids = read_ground_truth(devkit)
    if len(members) != len(wordnet_ids):
        raise SourceError(
            f"{path} holds {len(members)} images, {devkit} knows {len(wordnet_ids)}: "
            "they do not belong together"
        )
    images: dict[str, list[TarMember]] = {}
    for member, wordnet_id in zip(members, wordnet_ids, strict=True):
        images.setdefault(wordnet_id, []).append(member)
    return images


def read_ground_truth(devkit: Path) -> list[str]:
    """Return the WordNet id of each validation image, in the order of the image names.

    Args:
        devkit: ``ILSVRC2012_devkit_t12.tar.gz``.

    Raises:
        SourceError: scipy is not installed, or the devkit is damaged.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise SourceError(
            f"reading {devkit} needs scipy: pip install 'iirc-pipeline[imagenet]'"
        ) from error
    files = read_compressed(devkit, (_META, _GROUND_TRUTH))
    try:
        synsets = loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
        wordnet_ids: dict[int, Any] = dict(
            zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True)
        )
        return [str(wordnet_ids[int(line)]) for line in files[_GROUND_TRUTH].split()]
    except Exception as error:  # scipy raises many types on damaged files
        raise SourceError(
            f"{devkit} is damaged ({type(error).__name__}: {error}): download it again"
        ) from error
