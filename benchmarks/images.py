"""Encoded images to measure on: a dataset's own, repeated until they are enough, or drawn ones."""

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

_DRAWN_DETAIL = (6, 24, 96, 250)  # cells along the width of each layer of noise
_DRAWN_QUALITY = 92


@dataclass(frozen=True)
class RepeatedImages:
    """The images of a dataset, all of them again and again, dealt out to classes of equal size.

    Attributes:
        source: The dataset.
        n_images: How many images to give.
        n_classes: How many classes to deal them out to.
    """

    source: Source
    n_images: int
    n_classes: int
    encoded_here = False

    @classmethod
    def of_bytes(cls, source: Source, size: int, n_classes: int) -> Self:
        """Give as many images as have about some size.

        Args:
            source: The dataset.
            size: Bytes of encoded images.
            n_classes: How many classes to deal them out to.
        """
        originals = cls(source, 0, n_classes)._originals
        mean = sum(len(sample.data) for sample in originals) / len(originals)
        return cls(source, round(size / mean), n_classes)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.source.name

    def classes(self) -> dict[str, list[str]]:
        """Return one split, its classes numbered."""
        return {"train": [f"class{number:03d}" for number in range(self.n_classes)]}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of a class's images."""
        return len(range(self._number(class_name), self.n_images, self.n_classes))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return what the images depend on."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield a class's images, their keys numbered."""
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
    """JPEGs with the size and the amount of detail of ImageNet's photographs, which show nothing.

    Attributes:
        n_images: How many.
        width: Width of the larger half of them in pixels; the others are a quarter smaller.
    """

    n_images: int = 64
    width: int = 500
    name = "drawn photographs"
    encoded_here = True

    def classes(self) -> dict[str, list[str]]:
        """Return one split of one class."""
        return {"train": ["photograph"]}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images."""
        return self.n_images

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return what the images depend on."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images; image n is always the same."""
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
    """PNGs of noise, 32 x 32 pixels, with given classes: CIFAR's shape without CIFAR.

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
        """Return for each split the sorted names of its classes."""
        return {"test": sorted(self.class_names), "train": sorted(self.class_names)}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of a class's images."""
        return self.train if split == "train" else self.test

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return what the images depend on."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield a class's images; image n is always the same."""
        n = self.weight(split, class_name)
        stream = [self.class_names.index(class_name), split == "train"]
        pixels = np.random.default_rng(stream).integers(0, 256, (n, 32, 32, 3), np.uint8)
        for number in range(n):
            file = io.BytesIO()
            Image.fromarray(pixels[number]).save(file, format="PNG", compress_level=1)
            yield Sample(f"{number:04d}", "png", file.getvalue(), f"noise {class_name} {number}")


@contextmanager
def opened(data: Path | None, drawn: Source, n_images: int, n_classes: int) -> Iterator[ShardStore]:
    """Open shards; those of images that are none yet are written to a temporary folder.

    Args:
        data: Shard folder, image folder, or a tar of one.
        drawn: What to take where ``data`` is None.
        n_images: Where shards are written, how many images they have; repeated if need be.
        n_classes: Where shards are written, how many they are.

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
