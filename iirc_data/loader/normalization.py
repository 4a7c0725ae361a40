"""Normalisation of uint8 pixels to float32 network input."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.loader.batch import on_device
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
        _write(pixels, out, *self.rows(pixels.shape[-2], pixels.device))

    def rows(self, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is subtracted from a row of pixels, and the factors after it.

        Returns:
            float32 (3 W,) each, for values in [0, 255].
        """
        return _row_statistics(self, width, device)


def normalize_each(
    images: torch.Tensor, normalizations: Sequence[Normalization], which: NDArray[np.int64]
) -> torch.Tensor:
    """Normalise each image as its dataset asks.

    Args:
        images: uint8 (N, 3, H, W), channels-last.
        normalizations: The normalisation of each dataset.
        which: int64 (N,), number of each image's dataset.

    Returns:
        float32 of the same shape, channels-last; bit for bit what each normalisation returns.
    """
    device = images.device
    numbers = on_device(torch.from_numpy(which), device)
    of_datasets = [_row_statistics(n, images.shape[3], device) for n in normalizations]
    mean, scale = (torch.stack(rows)[numbers, None] for rows in zip(*of_datasets, strict=True))
    pixels = images.permute(0, 2, 3, 1)
    normalized = empty(pixels.shape, torch.float32, device)
    _write(pixels, normalized, mean, scale)
    return normalized.permute(0, 3, 1, 2)


def _write(
    pixels: torch.Tensor, out: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor
) -> None:
    # whole rows of pixels: long inner loops are many times faster than loops over channels
    out.flatten(-2).copy_(pixels.flatten(-2)).sub_(mean).mul_(scale)


@lru_cache(maxsize=64)  # copying them to a GPU for every batch would synchronise
def _row_statistics(
    normalization: Normalization, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(normalization.mean, dtype=torch.float32).mul_(255.0)
    std = torch.tensor(normalization.std, dtype=torch.float32).mul_(255.0)
    return mean.repeat(width).to(device), std.reciprocal_().repeat(width).to(device)
