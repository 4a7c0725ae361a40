"""Colour jitter: random changes of brightness, contrast, saturation and hue, in random order."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from iirc_data.augment.parameters import Integers, Operation

Strength = Annotated[float, Field(ge=0, le=100)]


class ColorJitter(BaseModel):
    """Draws colour changes, as torchvision's ``ColorJitter``.

    Each factor is uniform in [max(0, 1 - strength), 1 + strength]. A strength of 0 omits
    the change.

    Attributes:
        brightness: Strength of the change of brightness.
        contrast: Strength of the change of contrast.
        saturation: Strength of the change of saturation.
        hue: Largest shift of the hue in either direction, as a fraction of the colour circle, at
            most 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @property
    def n_random(self) -> int:
        """Number of random numbers used per image: four values, and four for their order."""
        return 8

    def operations(self, sizes: Integers, random: NDArray[np.float64]) -> list[list[Operation]]:
        """See :class:`~iirc_data.augment.operations.Change`."""
        ranges = {
            name: (max(0.0, 1.0 - strength), 1.0 + strength)
            for name, strength in [
                ("brightness", self.brightness),
                ("contrast", self.contrast),
                ("saturation", self.saturation),
            ]
        } | {"hue": (-self.hue, self.hue)}
        names = list(ranges)
        low, high = np.array(list(ranges.values())).T
        values = low + random[:, :4] * (high - low)
        orders = np.argsort(random[:, 4:], axis=1, kind="stable")
        used = low < high
        return [
            [Operation(names[n], float(of_image[n])) for n in order.tolist() if used[n]]
            for order, of_image in zip(orders, values, strict=True)
        ]
