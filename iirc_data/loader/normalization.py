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
        pixels = images.permute(0, 2, 3, 1)
        normalized = empty(pixels.shape, torch.float32, pixels.device)
        self.write(pixels, normalized)
        return normalized.permute(0, 3, 1, 2)

    def write(self, pixels: torch.Tensor, out: torch.Tensor) -> None:
        """Normalise pixels into memory that exists.

        Args:
            pixels: uint8 (..., W, 3).
            out: float32 of the same shape, contiguous; receives the result.
        """
        # whole rows of pixels: long inner loops are many times faster than loops over channels
        mean, scale = self.rows(pixels.shape[-2], pixels.device)
        out.flatten(-2).copy_(pixels.flatten(-2)).sub_(mean).mul_(scale)

    def rows(self, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is subtracted from a row of pixels, and the factors after it.

        Returns:
            float32 (3 W,) each, for values in [0, 255].
        """
        return _row_statistics(self, width, device)


@lru_cache(maxsize=8)  # copying them to a GPU for every batch would synchronise
def _row_statistics(
    normalization: Normalization, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(normalization.mean, dtype=torch.float32).mul_(255.0)
    std = torch.tensor(normalization.std, dtype=torch.float32).mul_(255.0)
    return mean.repeat(width).to(device), std.reciprocal_().repeat(width).to(device)
