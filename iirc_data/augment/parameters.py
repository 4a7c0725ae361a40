"""Augmentation as data: what a transform draws for each image of a batch, and the draw itself."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

_AUGMENT_STREAM = 1
_PHILOX_BLOCK = 4  # numbers per step of the Philox counter

Integers: TypeAlias = NDArray[np.int32]
Places: TypeAlias = NDArray[np.int32] | NDArray[np.int64]


class Operation(NamedTuple):
    """One change of an image's pixels.

    Attributes:
        name: Name of the operation, one of those in :mod:`iirc_data.loader.operations`.
        value: Its argument (a factor, degrees, pixels, …); 0 where it takes none.
    """

    name: str
    value: float = 0.0


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
        operations: For each image the operations that change the result, in order; None where
            no image has any.
    """

    window: Integers | None
    resize: Places | None
    crop: Places | None
    output_size: tuple[int, int] | None
    flip: NDArray[np.bool_]
    operations: tuple[tuple[Operation, ...], ...] | None = None

    def shown_sizes(self, heights: Integers, widths: Integers) -> Integers:
        """Return the sizes that images have once they are augmented.

        Args:
            heights: int32 (N,), of the original images in pixels.
            widths: int32 (N,), likewise.

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
