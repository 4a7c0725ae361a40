"""Resident images: decoded once, kept on the training device and augmented there."""

from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from iirc_data.augment import Augmentation, PerDataset, Places, Unchanged
from iirc_data.features.store import FeatureStore
from iirc_data.loader.batch import on_device
from iirc_data.loader.decoder import Decoder
from iirc_data.loader.epoch_samples import EpochSamples

MAX_BYTES = 1 << 30

_DECODED_AT_ONCE = 256


class ResidentImages:
    """The decoded images of samples, on a device.

    Args:
        samples: The samples; :func:`why_not_resident` must return None for them.
        decoder: Decodes them, once.
        device: Device that keeps the images.

    Raises:
        LoaderError: An image cannot be decoded.
    """

    def __init__(self, samples: EpochSamples, decoder: Decoder, device: torch.device) -> None:
        parts = [
            np.arange(start, min(start + _DECODED_AT_ONCE, len(samples)))
            for start in range(0, len(samples), _DECODED_AT_ONCE)
        ]
        heights, widths = samples.sizes.T
        work = (
            (part, Unchanged().parameters(heights[part], widths[part], np.empty(0)))
            for part in parts
        )
        decoded = decoder.images(samples.requests(np.arange(len(samples)), work))
        pixels = torch.empty(0)
        for part, images in zip(parts, decoded, strict=True):
            if not part[0]:
                shape = len(samples), *images.shape[1:]
                pixels = torch.empty(shape, dtype=images.dtype, device=device)
            pixels[part[0] : part[-1] + 1].copy_(images)
        self._bordered = _Bordered(pixels, 0)

    def augmented(self, numbers: NDArray[np.int64], augmentation: Augmentation) -> torch.Tensor:
        """Return augmented images.

        Args:
            numbers: int64 (N,), numbers of the samples.
            augmentation: Crops and flips.

        Returns:
            uint8 (N, H, W, 3), or float32 (N, 1, 1, D) of features, on the device.
        """
        # read once: an iterator in another thread may replace it by one with a wider border
        bordered = self._bordered
        chosen = _indices(numbers, bordered)
        if augmentation.crop is None or augmentation.output_size is None:
            images = bordered.images[chosen]
        else:
            crop, output_size = augmentation.crop, augmentation.output_size
            bordered = self._bordered = bordered.widened(crop, output_size)
            images = _cropped(bordered, chosen, crop, output_size)
        flipped = _indices(np.flatnonzero(augmentation.flip), bordered)
        images[flipped] = images[flipped].flip(2)
        return images


class _Bordered(NamedTuple):
    """Images with a black border, as wide as the crops have needed so far.

    Attributes:
        pixels: uint8 (N, H + 2 border, W + 2 border, 3), or features without a border.
        border: Width of the border in pixels.
    """

    pixels: torch.Tensor
    border: int

    @property
    def images(self) -> torch.Tensor:
        """The images without the border, a view."""
        height, width = (size - 2 * self.border for size in self.pixels.shape[1:3])
        return self.pixels.narrow(1, self.border, height).narrow(2, self.border, width)

    def widened(self, crop: Places, output_size: tuple[int, int]) -> Self:
        """Return the images with a border wide enough for these crops."""
        beyond = int(max(0, -crop.min(), (crop + output_size - self.images.shape[1:3]).max()))
        if beyond <= self.border:
            return self
        return type(self)(F.pad(self.images, (0, 0, *[beyond] * 4)), beyond)


def _cropped(
    bordered: _Bordered,
    chosen: torch.Tensor,
    crop: Places,
    output_size: tuple[int, int],
) -> torch.Tensor:
    pixels = bordered.pixels
    n, rows, columns, channels = pixels.shape
    height, width = output_size
    # a view of every window of every image; indexing copies the chosen windows in one step
    windows = pixels.as_strided(
        (n, rows - height + 1, columns - width + 1, height, width * channels),
        (*pixels.stride()[:3], pixels.stride(1), 1),
    )
    top, left = (
        _indices(crop[:, axis].astype(np.int64) + bordered.border, bordered) for axis in (0, 1)
    )
    return windows[chosen, top, left].view(len(chosen), height, width, channels)


def _indices(values: NDArray[np.int64], bordered: _Bordered) -> torch.Tensor:
    return on_device(torch.from_numpy(values), bordered.pixels.device)


def why_not_resident(samples: EpochSamples, transform: PerDataset) -> str | None:
    """Return why images cannot be resident, or None if they can."""
    if not len(samples):
        return "there are no images"
    smallest, largest = samples.sizes.min(axis=0), samples.sizes.max(axis=0)
    if (smallest != largest).any():
        return f"images differ in size, from {smallest.tolist()} to {largest.tolist()} pixels"
    heights, widths = samples.sizes[:1].T
    for each in transform.of_datasets(samples.present).transforms.values():
        augmentation = each.parameters(heights, widths, np.zeros((1, each.n_random)))
        if augmentation.window is not None or augmentation.resize is not None:
            return "the transform resizes images"
    return None


def decoded_bytes(samples: EpochSamples) -> int:
    """Return the size of the decoded images, or of the features, in bytes."""
    store = samples.store
    bytes_per_pixel = 4 * store.size if isinstance(store, FeatureStore) else 3
    return int(samples.sizes.astype(np.int64).prod(axis=1).sum()) * bytes_per_pixel
