"""Checks of a decoder on a GPU: whether batches are mixed up under load, and pixels are right.

Both run on a CPU too, as a rehearsal.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.images import DrawnPhotographs
from iirc_data.augment import RandomResizedCropFlip, Unchanged, uniform
from iirc_data.loader import Decoder, make_decoder
from iirc_data.loader.decoder import DecodeRequest, with_number
from iirc_data.sources.images import look_at

_PHOTOGRAPHS = 64
_WIDTH = 500  # pixels; on the CPU _REHEARSED_WIDTH
_REHEARSED_WIDTH = 100
_BATCH_SIZE = 32
_CROP = 224
_MATRIX, _PRODUCTS = 4096, 8  # some 20 ms for each batch on an H100, longer than decoding takes
_REHEARSED_MATRIX = 64
_KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"subsampling": "4:4:4"},
    "progressive": {"subsampling": "4:2:0", "progressive": True},
    "grayscale": {},
}


class PixelDifference(NamedTuple):
    """How the pixels of an image differ from Pillow's, in levels from 0 to 255.

    Attributes:
        mean: Mean of the absolute differences.
        p99: Their 99th percentile.
        largest: The largest one.
    """

    mean: float
    p99: float
    largest: int


def ordering_mismatches(
    decoder_factory: Callable[[], Decoder], n_batches: int, busy: bool, device: torch.device
) -> int:
    """Count the batches whose images change if the host does not wait for the GPU.

    The same batches, augmented as for ImageNet, are decoded twice: first with a wait after each
    batch, then without any.

    Args:
        decoder_factory: Makes a decoder for the device; it is closed at the end.
        n_batches: Number of batches.
        busy: The second time, queue large matrix products in the stream before each checksum, so
            that the GPU is batches behind the host.
        device: Device of the images.

    Returns:
        The number of batches with another checksum: 0 if all is well.
    """
    device = with_number(device)
    requests = _different_batches(n_batches, device)
    decoder = decoder_factory()
    try:
        expected = _checksums(decoder, requests, device, waits=True, busy=False)
        found = _checksums(decoder, requests, device, waits=False, busy=busy)
    finally:
        decoder.close()
    return sum(not torch.equal(*pair) for pair in zip(found, expected, strict=True))


def pixel_differences(
    device: torch.device, images: dict[str, bytes], *, hw_decoder_load: float = 0.0
) -> dict[str, PixelDifference]:
    """Compare DALI's decoding on a device with Pillow's.

    Args:
        device: The device that decodes.
        images: Name to encoded image; :func:`images_of_all_kinds` draws some.
        hw_decoder_load: See :func:`~iirc_data.loader.make.make_decoder`.

    Raises:
        LoaderError: DALI is not installed, or cannot decode an image.
    """
    decoder = make_decoder("dali", device, hw_decoder_load=hw_decoder_load)
    try:
        requests = [_unchanged(name, data) for name, data in images.items()]
        decoded = [batch[0].cpu() for batch in decoder.images(requests)]
    finally:
        decoder.close()
    return {
        name: _difference(pixels.numpy(), data)
        for pixels, (name, data) in zip(decoded, images.items(), strict=True)
    }


def images_of_all_kinds(width: int = 400) -> dict[str, bytes]:
    """Draw a photograph and encode it as each kind of JPEG that datasets hold."""
    (drawn,) = DrawnPhotographs(1, width).samples("train", "photograph")
    image = Image.open(io.BytesIO(drawn.data))
    encoded = {}
    for name, options in _KINDS.items():
        file = io.BytesIO()
        shown = image.convert("L") if name == "grayscale" else image
        shown.save(file, format="JPEG", quality=90, **options)
        encoded[name] = file.getvalue()
    return encoded


def _different_batches(n_batches: int, device: torch.device) -> list[DecodeRequest]:
    width = _WIDTH if device.type == "cuda" else _REHEARSED_WIDTH
    drawn = DrawnPhotographs(_PHOTOGRAPHS, width).samples("train", "photograph")
    encoded = [np.frombuffer(sample.data, np.uint8) for sample in drawn]
    looks = [look_at(image, "a drawn photograph") for image in encoded]
    heights, widths = np.array([(look.height, look.width) for look in looks], np.int32).T
    transform = RandomResizedCropFlip(_CROP)

    def batch(number: int) -> DecodeRequest:
        chosen = np.random.default_rng(number).permutation(_PHOTOGRAPHS)[:_BATCH_SIZE]
        random = uniform(0, number, 0, _BATCH_SIZE, transform.n_random)
        augmentation = transform.parameters(heights[chosen], widths[chosen], random)
        return DecodeRequest([encoded[n] for n in chosen], augmentation, "photograph {}".format)

    return [batch(number) for number in range(n_batches)]


def _checksums(
    decoder: Decoder,
    requests: list[DecodeRequest],
    device: torch.device,
    *,
    waits: bool,
    busy: bool,
) -> list[torch.Tensor]:
    """Return int64 (N,) per batch, on the CPU; only ``waits`` waits for the GPU before the end."""
    size = _MATRIX if device.type == "cuda" else _REHEARSED_MATRIX
    matrix, product = torch.rand(2, size, size, device=device)
    weights: torch.Tensor | None = None
    found = []
    for images in decoder.images(requests):
        pixels = images.reshape(len(images), -1)
        if weights is None:
            weights = torch.arange(1, pixels.shape[1] + 1, device=device) % 65_537
        if busy:
            for _ in range(_PRODUCTS):
                torch.mm(matrix, matrix, out=product)
        found.append((pixels.long() * weights).sum(dim=1))
        if waits and device.type == "cuda":
            torch.cuda.synchronize(device)
    return [checksum.cpu() for checksum in found]


def _unchanged(name: str, data: bytes) -> DecodeRequest:
    encoded = np.frombuffer(data, np.uint8)
    look = look_at(encoded, name)
    height, width = (np.array([side], np.int32) for side in (look.height, look.width))
    request = DecodeRequest(
        [encoded], Unchanged().parameters(height, width, np.empty(0)), lambda _: name
    )
    return request if look.is_plain else replace(request, odd=frozenset([0]))


def _difference(pixels: NDArray[np.uint8], data: bytes) -> PixelDifference:
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    difference = np.abs(pixels.astype(np.int16) - expected)
    return PixelDifference(
        float(difference.mean()), float(np.percentile(difference, 99)), int(difference.max())
    )
