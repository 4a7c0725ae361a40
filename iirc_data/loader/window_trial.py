"""A trial of decoding windows of images, compared with Pillow."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.dlpack import from_dlpack

from iirc_data.augment import Augmentation
from iirc_data.loader.dali_graph import Decoding, Steps
from iirc_data.loader.dali_pipeline import DaliPipeline, copied_on_gpu
from iirc_data.loader.decoder import DecodeRequest

_SIZES = [(96, 128), (375, 500)]  # heights and widths of the images
_WINDOWS = [(224, 224), (101, 77), (16, 24)]  # of windows
_KINDS: list[dict[str, Any]] = [  # how the images are written
    {"subsampling": "4:2:0"},
    {"subsampling": "4:2:0", "progressive": True},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:4:4"},
    {},  # grayscale
]


class WindowTrial:
    """Decodes windows of drawn JPEGs of common kinds.

    Args:
        device: Device that decodes.
        hw_decoder_load: See :func:`~iirc_data.loader.make.make_decoder`.
    """

    def __init__(self, device: torch.device, hw_decoder_load: float = 0.0) -> None:
        self._device = device
        self._decoding = Decoding(
            "mixed" if device.type == "cuda" else "cpu", hw_decoder_load=hw_decoder_load
        )
        self._images = [[_drawn(size, number) for number in range(len(_KINDS))] for size in _SIZES]

    def decode_whole_images(self) -> None:
        """Decode without windows.

        Raises:
            LoaderError: DALI cannot start.
            DaliError: DALI cannot decode.
        """
        pipeline = self._pipeline(has_window=False)
        for images in self._images:
            self._decoded(pipeline, images, None)

    def largest_difference(self) -> float:
        """Decode windows; return the largest mean difference of one from Pillow's, in levels.

        Raises:
            LoaderError: DALI cannot start.
            DaliError: DALI cannot decode.
        """
        pipeline = self._pipeline(has_window=True)
        differences = [0.0]
        for images, window in self._windows():
            found = self._decoded(pipeline, images, window)
            for pixels, encoded, (top, left, height, width) in zip(
                found, images, window.tolist(), strict=True
            ):
                image = Image.open(BytesIO(encoded.tobytes())).convert("RGB")
                expected = np.asarray(image.crop((left, top, left + width, top + height)))
                difference = np.abs(pixels.astype(np.int16) - expected)
                differences.append(float(difference.mean()))
        return max(differences)

    def _windows(self) -> Iterator[tuple[list[NDArray[np.uint8]], NDArray[np.int32]]]:
        random = np.random.default_rng(0)
        for size, images in zip(_SIZES, self._images, strict=True):
            for asked in [size, *_WINDOWS]:
                shape = np.minimum(asked, size)
                start = random.integers(0, np.array(size) - shape + 1, (len(images), 2))
                window = np.concatenate([start, np.broadcast_to(shape, start.shape)], axis=1)
                yield images, window.astype(np.int32)

    def _pipeline(self, has_window: bool) -> DaliPipeline:
        steps = Steps(has_window, None, None, leaves_size=False, decoding=self._decoding)
        return DaliPipeline(steps, len(_KINDS), 2, self._device)

    def _decoded(
        self,
        pipeline: DaliPipeline,
        images: list[NDArray[np.uint8]],
        window: NDArray[np.int32] | None,
    ) -> NDArray[np.uint8]:
        flip = np.zeros(len(images), dtype=bool)
        parameters = Augmentation(window, None, None, None, flip)
        pipeline.submit(DecodeRequest(images, parameters, "drawn image {}".format))
        with pipeline.outputs() as decoded:
            if self._device.type == "cuda":
                pixels = copied_on_gpu(decoded, self._device)
            else:
                pixels = from_dlpack(decoded.as_tensor()).clone()
        return pixels.cpu().numpy()


def _drawn(size: tuple[int, int], number: int) -> NDArray[np.uint8]:
    """Draw a JPEG with coarse and fine structure: a shift by a pixel changes it visibly."""
    height, width = size
    random = np.random.default_rng(number)
    pixels = np.zeros((height, width, 3))
    for cells, weight in [(4, 0.6), (32, 0.4)]:
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        pixels += weight * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    options = _KINDS[number]
    file = BytesIO()
    (image if options else image.convert("L")).save(file, format="JPEG", quality=92, **options)
    return np.frombuffer(file.getvalue(), np.uint8)
