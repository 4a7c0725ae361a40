"""Small images, decoded once and kept as uint8 on the training device, augmented there."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from iirc_data.augment import Augmentation, Transform, Unchanged
from iirc_data.loader.batch import on_device
from iirc_data.loader.engine import Engine
from iirc_data.loader.samples import Samples

MAX_BYTES = 1 << 30

_DECODED_AT_ONCE = 256


class ResidentImages:
    """The decoded images of samples, on a device.

    Args:
        samples: The samples; see :func:`why_not_resident`.
        engine: What decodes them, once.
        device: Where they are kept.

    Raises:
        LoaderError: An image cannot be decoded.
    """

    def __init__(self, samples: Samples, engine: Engine, device: torch.device) -> None:
        height, width = samples.sizes[0].tolist()
        self._border = 0  # black pixels around each image, as many as crops have needed so far
        self._pixels = torch.empty(
            (len(samples), height, width, 3), dtype=torch.uint8, device=device
        )
        parts = [
            np.arange(start, min(start + _DECODED_AT_ONCE, len(samples)))
            for start in range(0, len(samples), _DECODED_AT_ONCE)
        ]
        heights, widths = samples.sizes.T
        decoded = engine.images(
            samples.request(part, Unchanged().parameters(heights[part], widths[part], np.empty(0)))
            for part in parts
        )
        for part, images in zip(parts, decoded, strict=True):
            self._pixels[part[0] : part[-1] + 1].copy_(images)

    def augmented(self, numbers: NDArray[np.int64], augmentation: Augmentation) -> torch.Tensor:
        """Return some images, augmented.

        Args:
            numbers: int64 (N,), the samples' numbers.
            augmentation: Crops and flips.

        Returns:
            uint8 (N, H, W, 3), on the device.
        """
        chosen = self._indices(numbers)
        if augmentation.crop is None or augmentation.output_size is None:
            images = self._images[chosen]
        else:
            images = self._cropped(chosen, augmentation.crop, augmentation.output_size)
        flipped = self._indices(np.flatnonzero(augmentation.flip))
        images[flipped] = images[flipped].flip(2)
        return images

    @property
    def _images(self) -> torch.Tensor:
        """The images without their borders."""
        height, width = (size - 2 * self._border for size in self._pixels.shape[1:3])
        return self._pixels.narrow(1, self._border, height).narrow(2, self._border, width)

    def _cropped(
        self, chosen: torch.Tensor, crop: NDArray[np.int32], output_size: tuple[int, int]
    ) -> torch.Tensor:
        beyond = int(max(0, -crop.min(), (crop + output_size - self._images.shape[1:3]).max()))
        if beyond > self._border:
            self._pixels = F.pad(self._images, (0, 0, *[beyond] * 4))
            self._border = beyond
        n, rows, columns, channels = self._pixels.shape
        height, width = output_size
        # every window of every image, as a view: what is chosen of it is copied, once
        windows = self._pixels.as_strided(
            (n, rows - height + 1, columns - width + 1, height, width * channels),
            (*self._pixels.stride()[:3], self._pixels.stride(1), 1),
        )
        top, left = (
            self._indices(crop[:, axis].astype(np.int64) + self._border) for axis in (0, 1)
        )
        return windows[chosen, top, left].view(len(chosen), height, width, channels)

    def _indices(self, values: NDArray[np.int64]) -> torch.Tensor:
        return on_device(torch.from_numpy(values), self._pixels.device)


def why_not_resident(samples: Samples, transform: Transform) -> str | None:
    """Say why decoded images cannot be kept and augmented on the device; None where they can."""
    if not len(samples):
        return "there are no images"
    smallest, largest = samples.sizes.min(axis=0), samples.sizes.max(axis=0)
    if (smallest != largest).any():
        return f"images differ in size, from {smallest.tolist()} to {largest.tolist()} pixels"
    heights, widths = samples.sizes[:1].T
    augmentation = transform.parameters(heights, widths, np.zeros((1, transform.n_random)))
    if augmentation.window is not None or augmentation.resize is not None:
        return "the transform resizes images"
    return None


def decoded_bytes(samples: Samples) -> int:
    """Return the bytes that decoded images take."""
    return int(samples.sizes.astype(np.int64).prod(axis=1).sum()) * 3
