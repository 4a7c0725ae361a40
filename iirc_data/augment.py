"""Augmentation parameters: pure functions of image sizes, seed, epoch and place in the epoch.

A transform turns image sizes and random numbers into plain arrays; the loader's decoders only
carry them out. So every decoder shows the same crops, and a run resumes anywhere.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import LoaderError

_AUGMENT_STREAM = 1
_PHILOX_BLOCK = 4  # numbers that one step of the Philox counter gives
_RESIZED_CROP_TRIES = 10

Integers: TypeAlias = NDArray[np.int32]
Places: TypeAlias = NDArray[np.int32] | NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image of a batch, in this order; None where a step is left out.

    Attributes:
        window: int32 (N, 4): top, left, height, width of the part of the image that is used.
        resize: int32 or int64 (N, 2): height and width that the window is resized to, bilinear
            with antialiasing.
        crop: int32 or int64 (N, 2): top and left of the final crop, which may reach outside; what
            is outside is black.
        output_size: Height and width of the final crop, or None to keep the size.
        flip: bool (N,): mirror the result left to right.
    """

    window: Integers | None
    resize: Places | None
    crop: Places | None
    output_size: tuple[int, int] | None
    flip: NDArray[np.bool_]


class Transform(Protocol):
    """Draws augmentation parameters for images of given sizes."""

    @property
    def n_random(self) -> int:
        """Random numbers used per image."""

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """Return the parameters.

        Args:
            heights: int32 (N,), pixels.
            widths: int32 (N,), pixels.
            random: float64 (N, n_random), uniform in [0, 1).
        """


def uniform(seed: int, epoch: int, start: int, stop: int, columns: int) -> NDArray[np.float64]:
    """Return the random numbers of the places start to stop of an epoch.

    A place's numbers do not depend on how places are batched or shared among ranks.

    Returns:
        float64 (stop - start, columns), uniform in [0, 1).
    """
    blocks = -(-columns // _PHILOX_BLOCK)
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch, _AUGMENT_STREAM]))
    bits.advance(start * blocks)
    numbers = np.random.Generator(bits).random((stop - start, blocks * _PHILOX_BLOCK))
    return numbers[:, :columns]


@dataclass(frozen=True)
class Unchanged:
    """Shows images as they are."""

    n_random: int = 0

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        return Augmentation(None, None, None, None, np.zeros(len(heights), dtype=bool))


@dataclass(frozen=True)
class RandomCropFlip:
    """Pads with black, crops at random to the image's own size, mirrors every second image.

    The published augmentation of CIFAR (torchvision's ``RandomCrop(32, padding=4)`` and
    ``RandomHorizontalFlip``).

    Attributes:
        size: Height and width of the result in pixels.
        padding: Pixels added on every side.
    """

    size: int = 32
    padding: int = 4
    n_random: int = 3

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        room = np.stack([heights, widths], axis=1) + 2 * self.padding - self.size
        crop = np.floor(random[:, :2] * (np.maximum(room, 0) + 1)).astype(np.int32) - self.padding
        return Augmentation(None, None, crop, (self.size, self.size), random[:, 2] < 0.5)


@dataclass(frozen=True)
class RandomResizedCropFlip:
    """Crops a window of random area and shape, resizes it, mirrors every second image.

    The published augmentation of ImageNet (torchvision's ``RandomResizedCrop`` and
    ``RandomHorizontalFlip``): up to ten windows are drawn and the first that fits is taken;
    where none fits, the largest central window of an allowed shape.

    Attributes:
        size: Height and width of the result in pixels.
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width / height.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    n_random: int = 2 * _RESIZED_CROP_TRIES + 3

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
        place = np.where(found[:, None], random[:, -3:-1], 0.5)
        top = np.floor(place[:, 0] * (height[:, 0] - chosen_h + found))
        left = np.floor(place[:, 1] * (width[:, 0] - chosen_w + found))
        window = np.stack([top, left, chosen_h, chosen_w], axis=1).astype(np.int32)
        resize = np.full((n, 2), self.size, np.int32)
        return Augmentation(window, resize, None, (self.size, self.size), random[:, -1] < 0.5)

    def _central(
        self, height: NDArray[np.float64], width: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        aspect = np.clip(width / height, *self.ratio)
        # of an image one pixel wide, a narrower window is still one pixel wide
        window = np.rint(width / aspect), np.rint(height * aspect)
        return np.clip(window[0], 1, height), np.clip(window[1], 1, width)


@dataclass(frozen=True)
class ResizeCenterCrop:
    """Resizes the shorter side, then crops the centre: the published evaluation of ImageNet.

    Attributes:
        resize: Length of the shorter side after resizing, in pixels.
        size: Height and width of the result in pixels.
    """

    resize: int = 256
    size: int = 224
    n_random: int = 0

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        sides = np.stack([heights, widths], axis=1).astype(np.int64)
        resized = self.resize * sides // sides.min(axis=1, keepdims=True)
        crop = np.rint((resized - self.size) / 2).astype(np.int64)
        flip = np.zeros(len(heights), dtype=bool)
        return Augmentation(None, resized, crop, (self.size, self.size), flip)


@dataclass(frozen=True)
class TransformPreset:
    """How a dataset's images are shown.

    Attributes:
        train: Augmentation while training.
        evaluate: What is done to images otherwise.
        mean: Mean of each colour channel, of values in [0, 1].
        std: Standard deviation of each colour channel.
    """

    train: Transform
    evaluate: Transform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Turn mean and std, given as any numbers, into floats.

        Raises:
            LoaderError: They are not three numbers each, or are out of range.
        """
        mean, std = _of_channels("mean", self.mean), _of_channels("std", self.std)
        if not all(0 <= value <= 1 for value in mean):
            raise LoaderError(f"mean {mean} of a transform is not within [0, 1]: divide it by 255")
        if not all(value > 0 for value in std):
            raise LoaderError(f"std {std} of a transform is not positive: images are divided by it")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)


def _of_channels(name: str, values: Any) -> tuple[float, float, float]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # ragged lists, tensors of a GPU
        array = np.empty(0)
    if array.shape != (3,) or array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise LoaderError(
            f"{name} {values!r} of a transform is not three numbers: give one per colour channel"
        )
    red, green, blue = array.tolist()
    return float(red), float(green), float(blue)


TRANSFORM_PRESETS = {
    "cifar": TransformPreset(
        train=RandomCropFlip(),
        evaluate=Unchanged(),
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2009, 0.1984, 0.2023),
    ),
    "imagenet": TransformPreset(
        train=RandomResizedCropFlip(),
        evaluate=ResizeCenterCrop(),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
}
