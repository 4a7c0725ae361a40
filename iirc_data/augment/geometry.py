"""Transforms that crop, resize and mirror images."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment.parameters import Augmentation, Integers, Interpolation, Transform

_RESIZED_CROP_TRIES = 10


@dataclass(frozen=True)
class Unchanged:
    """Leaves images unchanged."""

    n_random: int = 0

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        return Augmentation(None, None, None, None, np.zeros(len(heights), dtype=bool))


@dataclass(frozen=True)
class RandomCrop:
    """Pads images with black and crops them at a random position, as torchvision's ``RandomCrop``.

    Attributes:
        size: Height and width of the result in pixels.
        padding: Pixels added on every side.
        resize: Length in pixels to which the shorter side is resized before padding; None for no
            resizing.
        interpolation: How the image is resized.
    """

    size: int = 32
    padding: int = 4
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    n_random: int = 2

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        resized = None if self.resize is None else _resized(heights, widths, self.resize)
        sides = np.stack([heights, widths], axis=1) if resized is None else resized
        room = np.maximum(sides + 2 * self.padding - self.size, 0)
        crop = np.floor(random * (room + 1)).astype(sides.dtype) - self.padding
        flip = np.zeros(len(heights), dtype=bool)
        return Augmentation(
            None, resized, crop, (self.size, self.size), flip, interpolation=self.interpolation
        )


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a random window and resizes it, as torchvision's ``RandomResizedCrop``.

    The window is the first of ten random ones that fits into the image. If none fits, it is the
    largest central window with an allowed aspect ratio.

    Attributes:
        size: Height and width of the result in pixels.
        scale: Minimum and maximum of the window's area as a fraction of the image's.
        ratio: Minimum and maximum of the window's width / height.
        interpolation: How the window is resized.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    n_random: int = 2 * _RESIZED_CROP_TRIES + 2

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        n = len(heights)
        height, width = heights[:, None].astype(np.float64), widths[:, None].astype(np.float64)
        tries = random[:, : 2 * _RESIZED_CROP_TRIES].reshape(n, 2, _RESIZED_CROP_TRIES)
        area = height * width * (self.scale[0] + tries[:, 0] * (self.scale[1] - self.scale[0]))
        low, high = np.log(self.ratio)
        aspect = np.exp(low + tries[:, 1] * (high - low))
        window_w = np.rint(np.sqrt(area * aspect))
        window_h = np.rint(np.sqrt(area / aspect))
        fits = (window_w > 0) & (window_w <= width) & (window_h > 0) & (window_h <= height)
        first = np.argmax(fits, axis=1)
        rows = np.arange(n)
        central_h, central_w = self._central(height[:, 0], width[:, 0])
        found = fits[rows, first]
        chosen_h = np.where(found, window_h[rows, first], central_h)
        chosen_w = np.where(found, window_w[rows, first], central_w)
        place = np.where(found[:, None], random[:, -2:], 0.5)
        top = np.floor(place[:, 0] * (height[:, 0] - chosen_h + found))
        left = np.floor(place[:, 1] * (width[:, 0] - chosen_w + found))
        window = np.stack([top, left, chosen_h, chosen_w], axis=1).astype(np.int32)
        resize = np.full((n, 2), self.size, np.int32)
        flip = np.zeros(n, dtype=bool)
        return Augmentation(
            window, resize, None, (self.size, self.size), flip, interpolation=self.interpolation
        )

    def _central(
        self, height: NDArray[np.float64], width: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        aspect = np.clip(width / height, *self.ratio)
        # at least one pixel, even in an image one pixel wide
        window = np.rint(width / aspect), np.rint(height * aspect)
        return np.clip(window[0], 1, height), np.clip(window[1], 1, width)


@dataclass(frozen=True)
class ResizeCenterCrop:
    """Resizes the shorter side and crops the centre; the default is the usual ImageNet evaluation.

    Attributes:
        resize: Length of the shorter side after resizing, in pixels; None for no resizing.
        size: Height and width of the result in pixels.
        interpolation: How the image is resized.
    """

    resize: int | None = 256
    size: int = 224
    interpolation: Interpolation = "bilinear"
    n_random: int = 0

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        resized = None if self.resize is None else _resized(heights, widths, self.resize)
        sides = np.stack([heights, widths], axis=1) if resized is None else resized
        crop = np.rint((sides - self.size) / 2).astype(np.int64)
        flip = np.zeros(len(heights), dtype=bool)
        return Augmentation(
            None, resized, crop, (self.size, self.size), flip, interpolation=self.interpolation
        )


@dataclass(frozen=True)
class Flipped:
    """Applies another transform, then mirrors images with probability 1/2.

    Attributes:
        shown: The other transform. It uses all random numbers but the last, which decides whether
            to mirror.
    """

    shown: Transform

    @property
    def n_random(self) -> int:
        """Number of random numbers used per image."""
        return self.shown.n_random + 1

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        shown = self.shown.parameters(heights, widths, random[:, :-1])
        return replace(shown, flip=random[:, -1] < 0.5)


class RandomCropFlip(Flipped):
    """The published augmentation of CIFAR: a random crop after padding, and a random flip."""

    def __init__(self, size: int = 32, padding: int = 4) -> None:
        super().__init__(RandomCrop(size, padding))


class RandomResizedCropFlip(Flipped):
    """The published augmentation of ImageNet: a random resized crop and a random flip."""

    def __init__(
        self,
        size: int = 224,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        super().__init__(RandomResizedCrop(size, scale, ratio))


def _resized(heights: Integers, widths: Integers, shorter_side: int) -> NDArray[np.int64]:
    sides = np.stack([heights, widths], axis=1).astype(np.int64)
    resized: NDArray[np.int64] = shorter_side * sides // sides.min(axis=1, keepdims=True)
    return resized
