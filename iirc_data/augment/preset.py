"""The transforms of training and evaluation, with their normalisation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from iirc_data.augment.parameters import Transform
from iirc_data.errors import LoaderError


@dataclass(frozen=True)
class TransformPreset:
    """The transforms and the normalisation of a dataset's images.

    Attributes:
        train: Transform of training images.
        evaluate: Transform of all other images.
        mean: Mean of each colour channel, for values in [0, 1].
        std: Standard deviation of each colour channel, for values in [0, 1].
    """

    train: Transform
    evaluate: Transform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check ``mean`` and ``std``, and convert them to floats.

        Raises:
            LoaderError: One of them is not three numbers, or is out of range.
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
    except (TypeError, ValueError):  # ragged lists, tensors on a GPU
        array = np.empty(0)
    if array.shape != (3,) or array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise LoaderError(
            f"{name} {values!r} of a transform is not three numbers: give one per colour channel"
        )
    red, green, blue = array.tolist()
    return float(red), float(green), float(blue)
