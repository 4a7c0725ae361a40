"""From uint8 pixels to what a network takes."""

from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Normalization:
    """Turns uint8 pixels into network input.

    Attributes:
        mean: Mean of each colour channel, of values in [0, 1].
        std: Standard deviation of each colour channel.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 (N, 3, H, W) to float32 of the same shape and memory format."""
        mean, scale = _pixel_statistics(self, images.device)
        return images.to(torch.float32).sub_(mean).mul_(scale)


@lru_cache(maxsize=8)  # a copy to a GPU for every batch would wait for it
def _pixel_statistics(
    normalization: Normalization, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (
        torch.tensor(values, device=device).mul_(255.0).view(3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return mean, std.reciprocal_()
