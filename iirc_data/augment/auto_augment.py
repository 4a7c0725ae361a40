"""AutoAugment (Cubuk et al., 2019): operations drawn from a policy that was found by search."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment.parameters import Integers, Operation

Policy = Literal["cifar10", "imagenet"]
Step = tuple[str, float, int]
"""An operation, its probability, and its level, 0 to 9."""

_LEVELS = 10

POLICIES: dict[Policy, list[tuple[Step, Step]]] = {
    "cifar10": [
        (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("saturation", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("saturation", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("saturation", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 0)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
        (("saturation", 0.9, 9), ("equalize", 0.6, 0)),
        (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("saturation", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 0), ("invert", 0.1, 0)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
    ],
    "imagenet": [
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
        (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
        (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
        (("saturation", 0.4, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    ],
}
"""The 25 sub-policies of each policy, as published (Cubuk et al., 2019, appendix)."""


@dataclass(frozen=True)
class AutoAugment:
    """Draws operations from a policy, as torchvision's ``AutoAugment``.

    One sub-policy, a pair of operations, is drawn for each image. Each of the two operations is
    applied with its own probability.

    Attributes:
        policy: ``"cifar10"`` or ``"imagenet"``.
    """

    policy: Policy
    n_random: int = 5

    def operations(self, sizes: Integers, random: NDArray[np.float64]) -> list[list[Operation]]:
        """See :class:`~iirc_data.augment.operations.Change`."""
        pairs = POLICIES[self.policy]
        chosen = np.floor(random[:, 0] * len(pairs)).astype(int)
        return [
            [
                _operation(name, level, size, is_negative=numbers[3 + step] < 0.5)
                for step, (name, probability, level) in enumerate(pairs[pair])
                if numbers[1 + step] < probability
            ]
            for pair, size, numbers in zip(
                chosen.tolist(), sizes.tolist(), random.tolist(), strict=True
            )
        ]


def _operation(name: str, level: int, size: list[int], is_negative: bool) -> Operation:
    if name in _SIGNED:
        magnitude = _SIGNED[name](level, *size)
        return Operation(name, _ARGUMENTS[name](-magnitude if is_negative else magnitude))
    return Operation(name, _UNSIGNED[name](level) if name in _UNSIGNED else 0.0)


def _between(start: float, end: float, level: int) -> float:
    """Return one of ten evenly spaced values, rounded to float32 as in ``torch.linspace``."""
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(_LEVELS - 1))
    if level < _LEVELS // 2:
        return float(np.float32(float(first) + step * level))
    return float(np.float32(float(last) - step * (_LEVELS - 1 - level)))


_SIGNED: dict[str, Callable[[int, int, int], float]] = {
    "shear_x": lambda level, height, width: _between(0.0, 0.3, level),
    "shear_y": lambda level, height, width: _between(0.0, 0.3, level),
    "translate_x": lambda level, height, width: _between(0.0, 150.0 / 331.0 * width, level),
    "translate_y": lambda level, height, width: _between(0.0, 150.0 / 331.0 * height, level),
    "rotate": lambda level, height, width: _between(0.0, 30.0, level),
    "brightness": lambda level, height, width: _between(0.0, 0.9, level),
    "saturation": lambda level, height, width: _between(0.0, 0.9, level),
    "contrast": lambda level, height, width: _between(0.0, 0.9, level),
    "sharpness": lambda level, height, width: _between(0.0, 0.9, level),
}
"""Magnitude as a function of level and image height and width; the sign is drawn."""

_ARGUMENTS: dict[str, Callable[[float], float]] = {
    "shear_x": lambda magnitude: math.degrees(math.atan(magnitude)),
    "shear_y": lambda magnitude: math.degrees(math.atan(magnitude)),
    "translate_x": lambda magnitude: float(int(magnitude)),
    "translate_y": lambda magnitude: float(int(magnitude)),
    "rotate": lambda magnitude: magnitude,
    "brightness": lambda magnitude: 1.0 + magnitude,
    "saturation": lambda magnitude: 1.0 + magnitude,
    "contrast": lambda magnitude: 1.0 + magnitude,
    "sharpness": lambda magnitude: 1.0 + magnitude,
}
"""Argument of an operation as a function of its signed magnitude."""

_UNSIGNED: dict[str, Callable[[int], float]] = {
    "posterize": lambda level: float(round(8 - level / ((_LEVELS - 1) / 4))),
    "solarize": lambda level: 255.0 * _between(1.0, 0.0, level),
}
"""Argument of an operation without a sign as a function of its level."""
