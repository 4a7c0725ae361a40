"""The engine that runs everywhere: Pillow decodes and resizes, on threads."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iirc_data.augment import Augmentation
from iirc_data.decoding import decode
from iirc_data.loader.engine import DecodeRequest, default_threads, sizes_differ

_BATCHES_AHEAD = 2


class TorchEngine:
    """Decodes and augments with Pillow (whose decoder releases the interpreter lock).

    Args:
        threads: Number of threads; by default one per processor.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads or default_threads(), "iirc-decode")

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.engine.Engine`."""
        pending: deque[tuple[DecodeRequest, list[Future[NDArray[np.uint8]]]]] = deque()
        try:
            for request in requests:
                submitted = [
                    self._pool.submit(_decode_and_augment, request, number)
                    for number in range(len(request.encoded))
                ]
                pending.append((request, submitted))
                if len(pending) > _BATCHES_AHEAD:
                    yield _collect(*pending.popleft())
            while pending:
                yield _collect(*pending.popleft())
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)


def _collect(request: DecodeRequest, futures: list[Future[NDArray[np.uint8]]]) -> torch.Tensor:
    images = [future.result() for future in futures]
    sizes = {(image.shape[0], image.shape[1]) for image in images}
    if len(sizes) > 1:
        raise sizes_differ(request, sizes)
    return torch.from_numpy(np.stack(images))


def _decode_and_augment(request: DecodeRequest, number: int) -> NDArray[np.uint8]:
    image = decode(request.encoded[number], lambda: request.names(number))
    return augment(image, request.augmentation, number)


def augment(image: Image.Image, augmentation: Augmentation, number: int) -> NDArray[np.uint8]:
    """Carry out one image's augmentation.

    Args:
        image: RGB.
        augmentation: A batch's parameters.
        number: The image's number in the batch.

    Returns:
        uint8 (H, W, 3).
    """
    if augmentation.window is not None:
        top, left, height, width = augmentation.window[number].tolist()
        image = image.crop((left, top, left + width, top + height))
    if augmentation.resize is not None:
        height, width = augmentation.resize[number].tolist()
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if augmentation.crop is not None and augmentation.output_size is not None:
        top, left = augmentation.crop[number].tolist()
        height, width = augmentation.output_size
        image = image.crop((left, top, left + width, top + height))  # Pillow fills with black
    pixels = np.asarray(image)
    return pixels[:, ::-1] if augmentation.flip[number] else pixels
