"""The decoder of features, which are stored as the numbers that they are."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from iirc_data.augment import TransformPreset, Unchanged
from iirc_data.errors import LoaderError
from iirc_data.loader.decoder import DecodeRequest

AS_THEY_ARE = TransformPreset(Unchanged(), Unchanged(), mean=(0.0,) * 3, std=(1.0,) * 3)
"""The transforms of features: none."""


class FeatureDecoder:
    """Stacks the features of a batch as "images" of one pixel with D channels.

    Args:
        size: Number of numbers of a feature, D.
    """

    name = "features"

    def __init__(self, size: int) -> None:
        self._size = size

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """Yield the features of each request, float32 (N, 1, 1, D).

        Raises:
            LoaderError: A memory does not hold features of D numbers.
        """
        for request in requests:
            for number, encoded in enumerate(request.encoded):
                if len(encoded) != 4 * self._size:
                    raise LoaderError(
                        f"{request.names(number)} has {len(encoded)} bytes, not {self._size} "
                        "numbers of a feature: it is a memory of a run with images"
                    )
            stacked = np.stack(request.encoded).view(np.float32)
            yield torch.from_numpy(stacked)[:, None, None]

    def resolved(self, has_windows: bool) -> dict[str, Any]:
        """Return nothing: features are not decoded."""
        return {}

    def close(self) -> None:
        """Do nothing."""
