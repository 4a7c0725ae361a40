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
        images = self._pixels[self._indices(numbers)]
        if augmentation.crop is not None and augmentation.output_size is not None:
            images = self._cropped(images, augmentation.crop, augmentation.output_size)
        flipped = self._indices(np.flatnonzero(augmentation.flip))
        images[flipped] = images[flipped].flip(2)
        return images

    def _cropped(
        self,
        images: torch.Tensor,
        crop: NDArray[np.int32],
        output_size: tuple[int, int],
    ) -> torch.Tensor:
        n, *size, channels = images.shape
        height, width = output_size
        beyond = int(max(0, -crop.min(), (crop + output_size - size).max()))
        padded = F.pad(images, (0, 0, beyond, beyond, beyond, beyond))
        rows, columns = padded.shape[1:3]
        # every window of every image, as a view: what is chosen of it is copied, once
        windows = padded.as_strided(
            (n, rows - height + 1, columns - width + 1, height, width * channels),
            (*padded.stride()[:3], padded.stride(1), 1),
        )
        top, left = (self._indices(crop[:, axis].astype(np.int64) + beyond) for axis in (0, 1))
        chosen = windows[torch.arange(n, device=images.device), top, left]
        return chosen.view(n, height, width, channels)

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
