"""Published API: opens a dataset's images from shards, CIFAR's pickles, or image folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iirc_data.benchmarks import Benchmark
from iirc_data.decoding import decode
from iirc_data.definitions import TEST, TRAIN, PathLike, SplitName
from iirc_data.errors import SourceError
from iirc_data.lifelong_dataset.samples import ImageSequence
from iirc_data.shards import ShardStore
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.sources.base import cannot_read, is_hidden, split_file_name
from iirc_data.sources.cifar import CIFAR_LAYOUTS, CifarSource, as_image
from iirc_data.splits import TEST_FOLDERS, TRAINING_FOLDER, split_folder

_FOLDERS: tuple[SplitName, ...] = (TRAIN, TEST)

Collections = dict[SplitName, "ImageCollection"]
"""The images of ``"train"`` and of ``"test"``."""


@dataclass(frozen=True, eq=False)
class ImageCollection:
    """Images for training or for testing, in the dataset's own order.

    Attributes:
        dataset: Name of the dataset, for error messages.
        classes: Names of the leaf classes. For image files, classes and files are sorted by name.
        class_ids: int32 (N,), index of each image's class in ``classes``.
        images: Pillow images or paths.
        are_paths: Whether ``images`` contains paths.
    """

    dataset: str
    classes: list[str]
    class_ids: NDArray[np.int32]
    images: ImageSequence
    are_paths: bool = False


@dataclass(frozen=True)
class ShardImages:
    """The images of consecutive samples of a shard store, decoded on access."""

    store: ShardStore
    sample_ids: range

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> Image.Image:
        sample_id = self.sample_ids[index]
        return decode(self.store.read(sample_id), lambda: self.store.name(sample_id))


@dataclass(frozen=True, eq=False)
class PixelImages:
    """CIFAR's images, uint8 (N, 3072): channel by channel, row by row."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return as_image(self.pixels[index])


def open_collections(root: PathLike, benchmark: Benchmark) -> Collections:
    """Open the dataset of a benchmark.

    Args:
        root: A shard folder, or a folder that contains it under the dataset's name; the address of
            a shard folder (``https://…``, ``s3://…``); a folder that contains ``cifar-100-python``
            or ``cifar-10-batches-py``; or one that contains ``train/<class>/*`` and
            ``val/<class>/*`` (or ``test/<class>/*``).
        benchmark: The benchmark. It determines the dataset, and which class folders are read.

    Raises:
        SourceError: ``root`` contains none of these, or a file is malformed.
        BenchmarkError: There are no training images, or no test images.
        ShardError: The shards are incomplete or damaged.
    """
    if "://" in str(root):
        return _from_shards(ShardStore.open(root))
    root = Path(root)
    for folder in (root, root / benchmark.dataset):
        if (folder / MANIFEST_NAME).is_file():
            return _from_shards(ShardStore.open(folder))
    if (cifar := _find_cifar(root, benchmark)) is not None:
        return _from_cifar(cifar)
    if (root / TRAINING_FOLDER).is_dir():
        return _from_image_folders(root, benchmark)
    cifar_folders = ", ".join(layout.folder for layout in CIFAR_LAYOUTS.values())
    raise SourceError(
        f"{root} contains no dataset: expected shards ({MANIFEST_NAME}), or one of the folders "
        f"{cifar_folders}, or the folders {TRAINING_FOLDER} and {' or '.join(TEST_FOLDERS)}"
    )


def _find_cifar(root: Path, benchmark: Benchmark) -> CifarSource | None:
    found = [
        CifarSource(root / layout.folder, layout)
        for layout in CIFAR_LAYOUTS.values()
        if (root / layout.folder).is_dir()
    ]
    for source in found:
        if set(benchmark.leaf_classes) <= set(source.class_names):
            return source
    return found[0] if found and not (root / TRAINING_FOLDER).is_dir() else None


def _from_shards(store: ShardStore) -> Collections:
    manifest = store.manifest
    collections = {}
    for split in _FOLDERS:
        rows = manifest.split_rows(split_folder(list(manifest.splits), manifest.dataset, split))
        collections[split] = ImageCollection(
            manifest.dataset,
            manifest.classes,
            store.table.class_id[rows.start : rows.stop],
            ShardImages(store, rows),
        )
    return collections


def _from_cifar(source: CifarSource) -> Collections:
    class_names = list(source.class_names)
    collections = {}
    for split in _FOLDERS:
        images = source.images(split)
        class_ids = images.labels.astype(np.int32)
        collections[split] = ImageCollection(
            source.name, class_names, class_ids, PixelImages(images.pixels)
        )
    return collections


def _from_image_folders(root: Path, benchmark: Benchmark) -> Collections:
    folders = [path.name for path in root.iterdir() if path.is_dir()]
    train, test = (root / split_folder(folders, root.name, split) for split in _FOLDERS)
    class_names = sorted(name for name in benchmark.leaf_classes if (train / name).is_dir())
    return {
        split: _list_images(folder, class_names)
        for split, folder in zip(_FOLDERS, (train, test), strict=True)
    }


def _list_images(folder: Path, class_names: list[str]) -> ImageCollection:
    paths: list[str] = []
    counts = []
    for name in class_names:
        files = sorted(_image_names(folder / name))
        paths += [f"{folder / name}{os.sep}{file}" for file in files]
        counts.append(len(files))
    class_ids = np.repeat(np.arange(len(class_names), dtype=np.int32), counts)
    return ImageCollection(folder.parent.name, class_names, class_ids, paths, are_paths=True)


def _image_names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:  # Path.iterdir is slow for ImageNet's million files
            for entry in entries:
                if not is_hidden(entry.name):
                    split_file_name(entry.name, entry.path)
                    yield entry.name
    except OSError as error:
        raise cannot_read(folder, error) from error
