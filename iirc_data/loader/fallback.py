"""Fallback to Pillow for images that DALI refuses or may decode differently."""

import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iirc_data.loader.decoder import DecodeRequest, encode_rgb_png


class Refused:
    """The images that a decoder refused or may refuse, recognised by their bytes."""

    def __init__(self) -> None:
        self._images: set[tuple[int, int]] = set()
        self._sizes: set[int] = set()

    def among(self, request: DecodeRequest) -> frozenset[int]:
        """Return the numbers of the images of a batch that are among them."""
        if not self._sizes:
            return frozenset()
        return frozenset(
            number
            for number, encoded in enumerate(request.encoded)
            if len(encoded) in self._sizes and _identity(encoded) in self._images
        )

    def add(self, request: DecodeRequest, numbers: Iterable[int]) -> None:
        """Remember images and warn about each of them once."""
        for number in sorted(numbers):
            identity = _identity(request.encoded[number])
            if identity not in self._images:
                self._images.add(identity)
                self._sizes.add(len(request.encoded[number]))
                warn_of_refusal(request.names(number))


def warn_of_refusal(name: str) -> None:
    """Warn that DALI refuses an image or may refuse it."""
    warnings.warn(
        f"{name} is not a sound image and DALI refuses it or may refuse it: Pillow decodes it",
        stacklevel=3,
    )


def with_finished(request: DecodeRequest, finished: Mapping[int, torch.Tensor]) -> DecodeRequest:
    """Return a request for the same batch in which some images only need to be mirrored.

    Args:
        request: The original request.
        finished: Number of an image to its pixels before mirroring, uint8 (H, W, 3).
    """
    encoded, augmentation = list(request.encoded), request.augmentation
    window = None if augmentation.window is None else augmentation.window.copy()
    resize = None if augmentation.resize is None else augmentation.resize.copy()
    crop = None if augmentation.crop is None else augmentation.crop.copy()
    for number, image in finished.items():
        encoded[number] = encode_rgb_png(Image.fromarray(image.numpy()))
        size = image.shape[:2]
        if window is not None:
            window[number] = 0, 0, *size
        if resize is not None:
            resize[number] = size
        if crop is not None:
            crop[number] = 0, 0
    return replace(
        request,
        encoded=encoded,
        augmentation=replace(augmentation, window=window, resize=resize, crop=crop),
        odd=request.odd - finished.keys(),
        irregular=request.irregular - finished.keys(),
    )


def _identity(encoded: NDArray[np.uint8]) -> tuple[int, int]:
    return len(encoded), zlib.crc32(encoded.data)
