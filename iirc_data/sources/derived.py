"""Sources that wrap other sources: some of the classes, or smaller images."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import PIL
from PIL import Image

from iirc_data.errors import SourceError
from iirc_data.sources.base import Sample, Source, inputs_of
from iirc_data.sources.images import decode_rgb
from iirc_data.spelling import with_known_spelling

DEFAULT_QUALITY = 90
_LONGEST_JPEG_SIDE = 65_500  # the limit of libjpeg


@dataclass(frozen=True)
class DerivedSource:
    """A source that forwards to another source everything that it does not override.

    Attributes:
        source: The other source.
    """

    source: Source

    @property
    def name(self) -> str:
        """See :class:`~iirc_data.sources.base.Source`."""
        return self.source.name

    @property
    def encoded_here(self) -> bool:
        """See :class:`~iirc_data.sources.base.Source`."""
        return self.source.encoded_here

    @property
    def inputs(self) -> tuple[Path, ...]:
        """See :class:`~iirc_data.sources.base.Source`."""
        return inputs_of(self.source)

    def classes(self) -> dict[str, list[str]]:
        """See :class:`~iirc_data.sources.base.Source`."""
        return self.source.classes()

    def weight(self, split: str, class_name: str) -> int:
        """See :class:`~iirc_data.sources.base.Source`."""
        return self.source.weight(split, class_name)

    def fingerprint(self, split: str, class_name: str) -> str:
        """See :class:`~iirc_data.sources.base.Source`."""
        return self.source.fingerprint(split, class_name)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """See :class:`~iirc_data.sources.base.Source`."""
        return self.source.samples(split, class_name)


@dataclass(frozen=True)
class ClassSubset(DerivedSource):
    """Some classes of a source.

    Attributes:
        source: The whole dataset.
        class_names: The classes to keep.
    """

    class_names: frozenset[str]

    @classmethod
    def of(cls, source: Source, class_names: frozenset[str]) -> Self:
        """Select some classes of a source.

        Raises:
            SourceError: A split lacks some of the classes; the message names them.
        """
        for split, names in source.classes().items():
            if missing := sorted(class_names - set(names)):
                raise SourceError(
                    f"split {split!r} of {source.name} lacks {len(missing)} of {len(class_names)} "
                    f"classes: {with_known_spelling(missing, names)}"
                )
        return cls(source, class_names)

    def classes(self) -> dict[str, list[str]]:
        """Return the kept classes of each split."""
        return {
            split: [name for name in names if name in self.class_names]
            for split, names in self.source.classes().items()
        }


@dataclass(frozen=True)
class ReencodedSource(DerivedSource):
    """The images of a source as RGB JPEGs, optionally smaller.

    An image that is too long for JPEG becomes a PNG.

    Attributes:
        source: The original source.
        shorter_side: Pixels to shrink the shorter side to; smaller images keep their size. None
            keeps the size of all images.
        quality: JPEG quality, 1 to 100.
        crop_bottom: Rows to remove at the bottom of each image, before it is shrunk.
    """

    shorter_side: int | None = None
    quality: int = DEFAULT_QUALITY
    crop_bottom: int = 0

    @property
    def name(self) -> str:
        """Name of the original dataset, with what was changed."""
        crop = f"-crop{self.crop_bottom}" if self.crop_bottom else ""
        size = "" if self.shorter_side is None else f"-{self.shorter_side}px"
        return f"{self.source.name}{crop}{size}-q{self.quality}"

    @property
    def encoded_here(self) -> bool:
        """True."""
        return True

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return the original's fingerprint, the settings, and the version of the encoder."""
        original = self.source.fingerprint(split, class_name)
        crop = f"crop {self.crop_bottom} " if self.crop_bottom else ""
        settings = f"{crop}{self.shorter_side} {self.quality}"
        return f"{original} {settings} Pillow {PIL.__version__}"

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images, encoded again.

        Raises:
            SourceError: The original source raises it, an image cannot be decoded, or nothing
                would be left of an image.
        """
        for sample in self.source.samples(split, class_name):
            image = self._resized(self._cropped(decode_rgb(sample), sample.origin))
            file = io.BytesIO()
            if max(image.size) > _LONGEST_JPEG_SIDE:
                image.save(file, format="PNG")
                yield Sample(sample.key, "png", file.getvalue(), sample.origin)
            else:
                image.save(file, format="JPEG", quality=self.quality)
                yield Sample(sample.key, "jpg", file.getvalue(), sample.origin)

    def _cropped(self, image: Image.Image, origin: str) -> Image.Image:
        if not self.crop_bottom:
            return image
        if image.height <= self.crop_bottom:
            raise SourceError(
                f"{origin} is {image.height} pixels high: removing {self.crop_bottom} rows at the "
                "bottom leaves nothing; remove it from the dataset"
            )
        return image.crop((0, 0, image.width, image.height - self.crop_bottom))

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.shorter_side is not None and min(image.size) > self.shorter_side:
            scale = self.shorter_side / min(image.size)
            width, height = (round(side * scale) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return image
