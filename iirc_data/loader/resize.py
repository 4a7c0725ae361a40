"""Decoding with Pillow; resizing and cropping decoded images on the CPU."""

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image

from iirc_data.augment import Augmentation
from iirc_data.decoding import decode
from iirc_data.loader.decoder import DecodeRequest
from iirc_data.loader.finish import resize_bytes

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# a resized image with more pixels than _LARGE, and _FAR_LARGER times as many as its crop, is
# resized only inside the crop
_LARGE = 1 << 22
_FAR_LARGER = 64
_FILTER_RADIUS = 2  # of the wider filter, bicubic, in pixels of the smaller image


def decode_window(request: DecodeRequest, number: int) -> torch.Tensor:
    """Decode one image with Pillow, and cut out its window.

    Args:
        request: The batch.
        number: The image's number in the batch.

    Returns:
        uint8 (H, W, 3).

    Raises:
        LoaderError: The image is damaged.
    """
    image = decode(request.encoded[number], lambda: request.names(number))
    if request.augmentation.window is not None:
        top, left, height, width = request.augmentation.window[number].tolist()
        image = image.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image))


def decode_and_augment(request: DecodeRequest, number: int) -> torch.Tensor:
    """Decode one image with Pillow, then resize and crop it.

    Args:
        request: The batch.
        number: The image's number in the batch.

    Returns:
        uint8 (H, W, 3).

    Raises:
        LoaderError: The image is damaged.
    """
    return resize_and_crop(decode_window(request, number), request.augmentation, number)


def resize_and_crop(image: torch.Tensor, augmentation: Augmentation, number: int) -> torch.Tensor:
    """Resize and crop the decoded window of one image.

    Args:
        image: uint8 (H, W, 3), the window.
        augmentation: Parameters of the batch.
        number: The image's number in the batch.

    Returns:
        uint8 (H, W, 3).
    """
    if augmentation.resize is not None:
        height, width = augmentation.resize[number].tolist()
        if height * width > _most_resized(augmentation):
            return _resize_part(image, height, width, augmentation, number)
        planes = image.permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W), channels-last
        resized = resize_bytes(planes, [height, width], augmentation.interpolation)
        image = resized[0].permute(1, 2, 0)
    if augmentation.crop is not None and augmentation.output_size is not None:
        top, left = augmentation.crop[number].tolist()
        image = _crop(image, top, left, *augmentation.output_size)
    return image


def shown_part(
    augmentation: Augmentation, number: int
) -> tuple[list[int], tuple[int, int], tuple[int, int]] | None:
    """Return which part of a resized image is shown.

    Returns:
        The size to resize to, and the top left corner and the size of the part. None if the image
        is not resized, if the part reaches beyond it, or if resizing all of it is too expensive.
    """
    if augmentation.resize is None:
        return None
    height, width = augmentation.resize[number].tolist()
    if augmentation.crop is None or augmentation.output_size is None:
        return [height, width], (0, 0), (height, width)
    top, left = augmentation.crop[number].tolist()
    rows, columns = augmentation.output_size
    is_inside = 0 <= top <= height - rows and 0 <= left <= width - columns
    if not is_inside or height * width > _most_resized(augmentation):
        return None
    return [height, width], (top, left), (rows, columns)


def far_larger(augmentation: Augmentation) -> frozenset[int]:
    """Return the numbers of the images whose crop is a tiny part of the resized image."""
    if augmentation.resize is None:
        return frozenset()
    pixels = augmentation.resize.astype(np.int64).prod(axis=1)
    return frozenset(np.flatnonzero(pixels > _most_resized(augmentation)).tolist())


def _most_resized(augmentation: Augmentation) -> float:
    if augmentation.crop is None or augmentation.output_size is None:
        return math.inf
    return max(_LARGE, _FAR_LARGER * math.prod(augmentation.output_size))


class _Span(NamedTuple):
    """Along one axis, the part of a resized image inside the crop, and its source pixels.

    Attributes:
        first: Start of the part in the resized image.
        length: Length of the part; 0 if the crop lies outside the image.
        source: Pixels of the original that the filter reads.
        box: Start and end, within ``source``, of the interval that is resized to ``length``.
    """

    first: int
    length: int
    source: slice
    box: tuple[float, float]

    @classmethod
    def of(cls, size: int, resized: int, begin: int, length: int) -> Self:
        """Return the span of a crop on an axis resized from ``size`` to ``resized`` pixels."""
        first, stop = (min(max(edge, 0), resized) for edge in (begin, begin + length))
        scale = size / resized
        reach = _FILTER_RADIUS * max(scale, 1.0) + 1
        start = max(math.floor(first * scale - reach), 0)
        end = min(math.ceil(stop * scale + reach), size)
        box = first * scale - start, stop * scale - start
        return cls(first, stop - first, slice(start, end), box)


def _resize_part(
    image: torch.Tensor, height: int, width: int, augmentation: Augmentation, number: int
) -> torch.Tensor:
    """Resize only the part of an image that lies inside the crop."""
    assert augmentation.crop is not None and augmentation.output_size is not None
    top, left = augmentation.crop[number].tolist()
    out_height, out_width = augmentation.output_size
    rows = _Span.of(image.shape[0], height, top, out_height)
    columns = _Span.of(image.shape[1], width, left, out_width)
    if not rows.length or not columns.length:
        return torch.zeros((out_height, out_width, 3), dtype=torch.uint8)
    part = Image.fromarray(np.ascontiguousarray(image[rows.source, columns.source].numpy()))
    # width before height, as torch; Pillow alone chooses the order by the sizes
    (left_edge, right_edge), (top_edge, bottom_edge) = columns.box, rows.box
    resampling = _PILLOW[augmentation.interpolation]
    part = part.resize(
        (columns.length, part.height), resampling, box=(left_edge, 0, right_edge, part.height)
    )
    part = part.resize(
        (columns.length, rows.length), resampling, box=(0, top_edge, columns.length, bottom_edge)
    )
    shown = torch.from_numpy(np.array(part))
    return _crop(shown, top - rows.first, left - columns.first, out_height, out_width)


def _crop(image: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    bottom, right = top + height, left + width
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (height, width):
        return inside
    cropped = torch.zeros((height, width, 3), dtype=torch.uint8)
    y, x = max(-top, 0), max(-left, 0)
    cropped[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return cropped
