"""Augmentation parameters as plain arrays, and the random numbers that they are drawn from."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

_AUGMENT_STREAM = 1
_PHILOX_BLOCK = 4  # numbers per step of the Philox counter

Integers: TypeAlias = NDArray[np.int32]
Places: TypeAlias = NDArray[np.int32] | NDArray[np.int64]
Interpolation: TypeAlias = Literal["bilinear", "bicubic"]


class Operation(NamedTuple):
    """One operation on an image's pixels.

    Attributes:
        name: Name of the operation, a key of the table in :mod:`iirc_data.loader.operations`.
        value: Its argument (a factor, degrees, pixels, …); 0 if it takes none.
    """

    name: str
    value: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of each image of a batch, in the order of its steps; None skips a step.

    Attributes:
        window: int32 (N, 4): top, left, height and width of the part of the image to use.
        resize: int32 or int64 (N, 2): height and width to resize the window to, with antialiasing.
        crop: int32 or int64 (N, 2): top and left of the final crop. Pixels of the crop that lie
            outside the image are black.
        output_size: Height and width of the final crop, or None for no crop.
        flip: bool (N,): whether to mirror the result left to right.
        operations: The operations to apply to each mirrored image, in order; None if no image has
            any.
        interpolation: How images are resized.
    """

    window: Integers | None
    resize: Places | None
    crop: Places | None
    output_size: tuple[int, int] | None
    flip: NDArray[np.bool_]
    operations: tuple[tuple[Operation, ...], ...] | None = None
    interpolation: Interpolation = "bilinear"

    def shown_sizes(self, heights: Integers, widths: Integers) -> Integers:
        """Return the sizes of the augmented images.

        Args:
            heights: int32 (N,), heights of the original images in pixels.
            widths: int32 (N,), widths of the original images in pixels.

        Returns:
            int32 (N, 2), height and width in pixels.
        """
        if self.crop is not None and self.output_size is not None:
            return np.tile(np.array(self.output_size, np.int32), (len(heights), 1))
        if self.resize is not None:
            return self.resize.astype(np.int32)
        if self.window is not None:
            return self.window[:, 2:]
        return np.stack([heights, widths], axis=1)


class Transform(Protocol):
    """Draws augmentation parameters for images of given sizes."""

    @property
    def n_random(self) -> int:
        """Number of random numbers used per image."""

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """Return the augmentation parameters of images.

        Args:
            heights: int32 (N,), heights in pixels.
            widths: int32 (N,), widths in pixels.
            random: float64 (N, n_random), uniform in [0, 1).
        """


def uniform(seed: int, epoch: int, start: int, stop: int, columns: int) -> NDArray[np.float64]:
    """Return the random numbers of the positions ``start`` to ``stop - 1`` of an epoch.

    The numbers of a position do not depend on how positions are batched or divided among ranks.

    Returns:
        float64 (stop - start, columns), uniform in [0, 1).
    """
    blocks = -(-columns // _PHILOX_BLOCK)
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch, _AUGMENT_STREAM]))
    bits.advance(start * blocks)
    numbers = np.random.Generator(bits).random((stop - start, blocks * _PHILOX_BLOCK))
    return numbers[:, :columns]
