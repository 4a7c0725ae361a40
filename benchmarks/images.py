"""Encoded images for the benchmarks: those of a dataset, repeated as needed, or drawn images."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.sources import Sample, Source, open_folder

_DRAWN_DETAIL = (6, 24, 96, 250)  # number of noise cells along the width, for each layer
_DRAWN_QUALITY = 92


@dataclass(frozen=True)
class RepeatedImages:
    """The images of a dataset, repeated, and divided into classes of equal size.

    Attributes:
        source: The dataset.
        n_images: Number of images.
        n_classes: Number of classes.
    """

    source: Source
    n_images: int
    n_classes: int
    encoded_here = False

    @classmethod
    def of_bytes(cls, source: Source, size: int, n_classes: int) -> Self:
        """Return images with a given total size.

        Args:
            source: The dataset.
            size: Approximate size of all encoded images in bytes.
            n_classes: Number of classes.
        """
        originals = cls(source, 0, n_classes)._originals
        mean = sum(len(sample.data) for sample in originals) / len(originals)
        return cls(source, round(size / mean), n_classes)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.source.name

    def classes(self) -> dict[str, list[str]]:
        """Return one split with numbered classes."""
        return {"train": [f"class{number:03d}" for number in range(self.n_classes)]}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class."""
        return len(range(self._number(class_name), self.n_images, self.n_classes))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a text that identifies the images."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of a class, with numbered keys."""
        for number in range(self._number(class_name), self.n_images, self.n_classes):
            original = self._originals[number % len(self._originals)]
            yield Sample(f"{number:07d}", original.extension, original.data, original.origin)

    @cached_property
    def _originals(self) -> list[Sample]:
        return [
            sample
            for split, names in self.source.classes().items()
            for name in names
            for sample in self.source.samples(split, name)
        ]

    def _number(self, class_name: str) -> int:
        return int(class_name.removeprefix("class"))


@dataclass(frozen=True)
class DrawnPhotographs:
    """JPEGs of noise, with the size and the amount of detail of ImageNet's photographs.

    Attributes:
        n_images: Number of images.
        width: Width in pixels of every second image; the others are a quarter smaller.
    """

    n_images: int = 64
    width: int = 500
    name = "drawn photographs"
    encoded_here = True

    def classes(self) -> dict[str, list[str]]:
        """Return one split with one class."""
        return {"train": ["photograph"]}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images."""
        return self.n_images

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a text that identifies the images."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images, the same ones at each call."""
        for number in range(self.n_images):
            width = self.width if number % 2 == 0 else 3 * self.width // 4
            size = (width, 3 * width // 4)
            random = np.random.default_rng(number)
            pixels = np.full((size[1], size[0], 3), 128.0)
            for detail in _DRAWN_DETAIL:
                noise = random.integers(0, 256, (3 * detail // 4 + 1, detail, 3), np.uint8)
                layer = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
                pixels += (np.asarray(layer, np.float64) - 128) * _DRAWN_DETAIL[0] / detail**0.7
            file = io.BytesIO()
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(file, format="JPEG", quality=_DRAWN_QUALITY)
            yield Sample(f"{number:04d}", "jpg", file.getvalue(), f"drawn photograph {number}")


@dataclass(frozen=True)
class NoiseImages:
    """PNGs of noise, 32 x 32 pixels, with given classes, as a substitute for CIFAR.

    Attributes:
        class_names: The classes.
        train: Training images per class.
        test: Test images per class.
    """

    class_names: tuple[str, ...]
    train: int
    test: int
    name = "noise"
    encoded_here = False

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the classes of each split."""
        return {"test": sorted(self.class_names), "train": sorted(self.class_names)}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class."""
        return self.train if split == "train" else self.test

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return a text that identifies the images."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of a class, the same ones at each call."""
        n = self.weight(split, class_name)
        stream = [self.class_names.index(class_name), split == "train"]
        pixels = np.random.default_rng(stream).integers(0, 256, (n, 32, 32, 3), np.uint8)
        for number in range(n):
            file = io.BytesIO()
            Image.fromarray(pixels[number]).save(file, format="PNG", compress_level=1)
            yield Sample(f"{number:04d}", "png", file.getvalue(), f"noise {class_name} {number}")


@contextmanager
def opened(data: Path | None, drawn: Source, n_images: int, n_classes: int) -> Iterator[ShardStore]:
    """Open shards; images that are not sharded yet are sharded into a temporary folder.

    Args:
        data: Shard folder, image folder, or a tar of an image folder.
        drawn: The images if ``data`` is None.
        n_images: Number of images in new shards; images are repeated as needed.
        n_classes: Number of classes, and of shards, if new shards are written.

    Yields:
        The opened shards.

    Raises:
        SourceError: There are no images.
    """
    if data is not None and (data / MANIFEST_NAME).exists():
        yield ShardStore.open(data)
        return
    source = drawn if data is None else open_folder(data)
    with tempfile.TemporaryDirectory(prefix="iirc-benchmark-") as folder:
        write_shards(RepeatedImages(source, n_images, n_classes), Path(folder))
        yield ShardStore.open(folder)
