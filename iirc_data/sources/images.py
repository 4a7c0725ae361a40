"""Inspecting and decoding raw images; errors name the file."""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from iirc_data.decoding import as_rgb
from iirc_data.errors import SourceError
from iirc_data.sources.base import Sample
from iirc_data.sources.jpeg import Encoded, is_plain_jpeg, is_regular_jpeg, read_frame
from iirc_data.sources.png import is_plain_png, is_regular_png, png_size

RGB_OF_16_BITS = "RGB;16B"
"""RGB with 16 bits per channel; Pillow calls it ``RGB``, and other decoders round differently."""
GRAY_OF_16_BITS = "I;16B"
"""Grayscale with 16 bits; Pillow calls it ``I`` or ``I;16``, depending on its version."""

_FORMATS = ("JPEG", "PNG")

_MODES = {1: "L", 3: "RGB"}


class ImageHeader(NamedTuple):
    """The content of an image's header.

    Attributes:
        height: In pixels.
        width: In pixels.
        mode: Pillow's name for the pixel format, or :data:`RGB_OF_16_BITS` or
            :data:`GRAY_OF_16_BITS`.
    """

    height: int
    width: int
    mode: str


def read_header(data: Encoded, origin: str) -> ImageHeader:
    """Read an image's header, without decoding its pixels.

    Args:
        data: The encoded image.
        origin: Name of the image in error messages.

    Raises:
        SourceError: The data is not a JPEG or PNG image, or has more pixels than Pillow accepts.
    """
    frame = read_frame(data)
    if frame is not None:
        header = ImageHeader(frame.height, frame.width, _MODES[len(frame.components) // 3])
    else:
        image = _open(data, origin)
        stored = image.tile[0][3] if image.tile else None
        mode = stored if stored in (RGB_OF_16_BITS, GRAY_OF_16_BITS) else image.mode
        header = ImageHeader(image.height, image.width, str(mode))
    _check_size(header.height, header.width, origin)
    return header


class Look(NamedTuple):
    """The result of inspecting an image before it is decoded.

    Attributes:
        height: In pixels; a decoder will reserve memory for this size.
        width: In pixels.
        is_plain: Whether all decoders give the same pixels, or all refuse the image.
        is_regular: Whether the structure of the file follows its format.
    """

    height: int
    width: int
    is_plain: bool
    is_regular: bool


def look_at(data: NDArray[np.uint8], origin: str) -> Look:
    """Inspect an image before it is decoded; fast, because every image is inspected.

    Args:
        data: uint8 (bytes,), the encoded image.
        origin: Name of the image in error messages.

    Raises:
        SourceError: The data is not a JPEG or PNG image, or has more pixels than Pillow accepts.
    """
    encoded = data.data
    if (size := png_size(encoded)) is not None:
        is_plain = is_plain_png(encoded)
        return Look(*size, is_plain, is_plain or is_regular_png(encoded))
    if (frame := read_frame(encoded)) is not None:
        _check_size(frame.height, frame.width, origin)
        return Look(frame.height, frame.width, is_plain_jpeg(data, frame), is_regular=True)
    header = read_header(encoded, origin)
    return Look(header.height, header.width, is_plain=False, is_regular=is_regular_jpeg(encoded))


def decode_rgb(sample: Sample) -> Image.Image:
    """Decode all pixels of an image and convert them to RGB as Pillow does.

    Raises:
        SourceError: The data is not an image, or the image is damaged.
    """
    image = _open(sample.data, sample.origin)
    try:
        return as_rgb(image)
    except Exception as error:  # Pillow raises many types on broken data
        raise SourceError(f"{sample.origin} is damaged and cannot be decoded: {error}") from error


def _check_size(height: int, width: int, origin: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise SourceError(
            f"{origin} is too large an image: {width} x {height} pixels, "
            f"at most {limit:,} are accepted"
        )


def _open(data: Encoded, origin: str) -> ImageFile:
    if not data:
        raise SourceError(f"{origin} is empty (0 bytes): it is not an image")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise SourceError(f"{origin} is too large an image: {error}") from error
    except UnidentifiedImageError as error:  # its text names a Python object
        raise SourceError(
            f"{origin} is not a JPEG or PNG image, whatever its name says: convert or remove it"
        ) from error
    except Exception as error:  # Pillow raises many types on broken headers
        if "MAX_TEXT" in str(error) or "Decompressed Data Too Large" in str(error):  # Pillow 10.0
            raise SourceError(
                f"{origin} has longer comments than Pillow reads: save it again without them"
            ) from error
        raise SourceError(f"{origin} is not a JPEG or PNG image: {error}") from error
