"""Augmentation of batches that mix the images of several datasets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment.parameters import Augmentation, Integers, Operation, Transform
from iirc_data.errors import LoaderError


@dataclass(frozen=True)
class PerDataset:
    """Draws the augmentation of each image with the transform of its dataset.

    All batches have the same steps, those that any of the datasets needs: an image whose own
    transform lacks one of them passes through it unchanged.

    Attributes:
        transforms: Number of each dataset to its transform; at least one.
    """

    transforms: Mapping[int, Transform]

    @property
    def n_random(self) -> int:
        """Number of random numbers used per image."""
        return max(transform.n_random for transform in self.transforms.values())

    def of_datasets(self, numbers: Iterable[int]) -> Self:
        """Return the transforms of some of the datasets; all, if none is named."""
        chosen = {number: self.transforms[number] for number in numbers}
        return type(self)(chosen or self.transforms)

    def parameters(
        self,
        datasets: NDArray[np.int64] | None,
        heights: Integers,
        widths: Integers,
        random: NDArray[np.float64],
    ) -> Augmentation:
        """Return the augmentation parameters of images.

        Args:
            datasets: int64 (N,), number of each image's dataset; None if there is only one.
            heights: int32 (N,), heights in pixels.
            widths: int32 (N,), widths in pixels.
            random: float64 (N, n_random), uniform in [0, 1).

        Raises:
            LoaderError: The images get different sizes.
        """
        first, *others = self.transforms.values()
        if datasets is None or not others:
            return first.parameters(heights, widths, random)
        places = [np.flatnonzero(datasets == number) for number in self.transforms]
        groups = [
            transform.parameters(heights[rows], widths[rows], random[rows, : transform.n_random])
            for transform, rows in zip(self.transforms.values(), places, strict=True)
        ]
        sizes = np.stack([heights, widths], axis=1)
        return _joined(groups, [sizes[rows] for rows in places], np.argsort(np.concatenate(places)))


def _joined(
    groups: Sequence[Augmentation], sizes: Sequence[Integers], order: NDArray[np.int64]
) -> Augmentation:
    """Join the augmentation of groups of images; a group without an image has steps, too.

    Args:
        groups: The augmentation of each group.
        sizes: Height and width in pixels of its images, int32 (n, 2).
        order: int64 (N,), place of each image of the batch among those of all groups.
    """

    def in_order(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(list(arrays))[order]

    shown = in_order(g.shown_sizes(*size.T) for g, size in zip(groups, sizes, strict=True))
    if (shown != shown[:1]).any():
        raise LoaderError(
            f"the transforms of the datasets give images of different sizes, "
            f"{np.unique(shown, axis=0).tolist()[:3]} pixels: give their image presets one size"
        )
    windows = [
        np.pad(size, ((0, 0), (2, 0))) if g.window is None else g.window
        for g, size in zip(groups, sizes, strict=True)
    ]
    resized = [
        window[:, 2:] if g.resize is None else g.resize
        for g, window in zip(groups, windows, strict=True)
    ]
    crops = [
        np.zeros_like(size) if g.crop is None else g.crop
        for g, size in zip(groups, resized, strict=True)
    ]
    has_window, has_resize, has_crop = (
        any(getattr(g, step) is not None for g in groups) for step in ("window", "resize", "crop")
    )
    interpolations = {g.interpolation for g in groups if g.resize is not None} or {"bilinear"}
    if len(interpolations) > 1:
        raise LoaderError(
            "the transforms of the datasets resize images in different ways, "
            f"{' and '.join(sorted(interpolations))}: give their image presets one interpolation"
        )
    height_and_width = shown[0].tolist() if len(shown) else (0, 0)
    return Augmentation(
        window=in_order(windows) if has_window else None,
        resize=in_order(resized) if has_resize else None,
        crop=in_order(crops) if has_crop else None,
        output_size=(height_and_width[0], height_and_width[1]) if has_crop else None,
        flip=in_order(g.flip for g in groups),
        operations=_joined_operations(groups, order),
        interpolation=interpolations.pop(),
    )


def _joined_operations(
    groups: Sequence[Augmentation], order: NDArray[np.int64]
) -> tuple[tuple[Operation, ...], ...] | None:
    if all(g.operations is None for g in groups):
        return None
    listed = [of_image for g in groups for of_image in g.operations or ((),) * len(g.flip)]
    return tuple(listed[place] for place in order.tolist())
