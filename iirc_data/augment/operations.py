"""Transforms that add operations on pixels: colour jitter, AutoAugment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment.parameters import Augmentation, Integers, Operation, Transform


class Change(Protocol):
    """Draws operations on pixels for each image."""

    @property
    def n_random(self) -> int:
        """Number of random numbers used per image."""

    def operations(
        self, sizes: Integers, random: NDArray[np.float64]
    ) -> Sequence[Sequence[Operation]]:
        """Return the operations of each image, in order.

        Args:
            sizes: int32 (N, 2), height and width of the images in pixels.
            random: float64 (N, n_random), uniform in [0, 1).
        """


@dataclass(frozen=True)
class Changed:
    """Applies another transform, then draws operations for its result.

    Attributes:
        shown: The other transform. It uses the first random numbers, the changes use the rest.
        changes: The changes, in order.
    """

    shown: Transform
    changes: tuple[Change, ...]

    @property
    def n_random(self) -> int:
        """Number of random numbers used per image."""
        return self.shown.n_random + sum(change.n_random for change in self.changes)

    def parameters(
        self, heights: Integers, widths: Integers, random: NDArray[np.float64]
    ) -> Augmentation:
        """See :class:`Transform`."""
        used = self.shown.n_random
        shown = self.shown.parameters(heights, widths, random[:, :used])
        sizes = shown.shown_sizes(heights, widths)
        drawn = []
        for change in self.changes:
            drawn.append(change.operations(sizes, random[:, used : used + change.n_random]))
            used += change.n_random
        operations = tuple(tuple(chain(*of_image)) for of_image in zip(*drawn, strict=True))
        return replace(shown, operations=operations)
