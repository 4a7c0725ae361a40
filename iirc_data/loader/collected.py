"""Collecting the images of a batch from any number of threads."""

from collections.abc import Sequence
from threading import Lock

import torch

from iirc_data.loader.decoder import DecodeRequest, sizes_differ
from iirc_data.loader.finish import finish
from iirc_data.loader.host_memory import empty
from iirc_data.loader.resize import resize_and_crop, shown_part

_CPU = torch.device("cpu")


class CollectedImages:
    """A batch in the making; each image is finished in its place while it is in the cache.

    Args:
        request: The batch.
    """

    def __init__(self, request: DecodeRequest) -> None:
        self._request = request
        self._flips: list[bool] = request.augmentation.flip.tolist()
        self._lock = Lock()
        self._batch: torch.Tensor | None = None
        self._sizes: set[tuple[int, int]] = set()

    def put(self, numbers: Sequence[int], windows: Sequence[torch.Tensor]) -> None:
        """Resize, crop, mirror and normalise images as the request asks for.

        Args:
            numbers: Their numbers in the batch.
            windows: uint8 (H, W, 3) each: the decoded windows.
        """
        augmentation = self._request.augmentation
        images, sizes, corners, flips, places = [], [], [], [], []
        for number, image in zip(numbers, windows, strict=True):
            part = shown_part(augmentation, number)
            if part is None:
                image = resize_and_crop(image, augmentation, number)
                part = [], (0, 0), (image.shape[0], image.shape[1])
            place = self._place(number, part[2])
            if place is not None:
                images.append(image)
                sizes.append(part[0])
                corners.append(part[1])
                flips.append(self._flips[number])
                places.append(place)
        if images:
            normalization = self._request.normalization
            width = places[0].shape[1]
            rows = (None, None) if normalization is None else normalization.rows(width, _CPU)
            finish(images, sizes, augmentation.interpolation, corners, flips, places, *rows)

    def batch(self) -> torch.Tensor:
        """Return the batch, once every image was added.

        Returns:
            uint8 (N, H, W, 3), or float32 if the request asks for normalised images.

        Raises:
            LoaderError: The images differ in size.
        """
        if len(self._sizes) != 1 or self._batch is None:
            raise sizes_differ(self._request, self._sizes)
        return self._batch

    def _place(self, number: int, size: tuple[int, int]) -> torch.Tensor | None:
        """Return the memory of an image, or None if the images differ in size."""
        with self._lock:
            self._sizes.add(size)
            if self._batch is None:
                dtype = torch.uint8 if self._request.normalization is None else torch.float32
                self._batch = empty((len(self._flips), *size, 3), dtype, _CPU)
            return self._batch[number] if len(self._sizes) == 1 else None
