"""Normalisation of uint8 pixels to float32 network input."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from iirc_data.loader.host_memory import empty


@dataclass(frozen=True)
class Normalization:
    """Subtracts a mean and divides by a standard deviation, per colour channel.

    Attributes:
        mean: Mean of each colour channel, of values in [0, 1].
        std: Standard deviation of each colour channel.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 (N, 3, H, W) to float32 of the same shape, both channels-last."""
        # whole rows of pixels: long inner loops are many times faster than loops over channels
        rows = images.permute(0, 2, 3, 1).flatten(2)
        mean, scale = _row_statistics(self, images.shape[3], images.device)
        normalized = empty(rows.shape, torch.float32, rows.device)
        normalized.copy_(rows).sub_(mean).mul_(scale)
        return normalized.view(*rows.shape[:2], -1, 3).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)  # copying them to a GPU for every batch would synchronise
def _row_statistics(
    normalization: Normalization, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(normalization.mean, dtype=torch.float32).mul_(255.0)
    std = torch.tensor(normalization.std, dtype=torch.float32).mul_(255.0)
    return mean.repeat(width).to(device), std.reciprocal_().repeat(width).to(device)
