"""Looking into raw images; what is no image is an error that names the file."""

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
"""RGB of 16 bits a channel, which Pillow calls ``RGB`` and other decoders round otherwise."""
GRAY_OF_16_BITS = "I;16B"
"""Gray of 16 bits, which Pillow calls ``I`` or ``I;16``, as its version is."""

_FORMATS = ("JPEG", "PNG")

_MODES = {1: "L", 3: "RGB"}


class ImageHeader(NamedTuple):
    """What an image's header says.

    Attributes:
        height: In pixels.
        width: In pixels.
        mode: Pillow's name of the pixel format, or :data:`RGB_OF_16_BITS` or
            :data:`GRAY_OF_16_BITS`.
    """

    height: int
    width: int
    mode: str


def read_header(data: Encoded, origin: str) -> ImageHeader:
    """Read an image's header, without decoding its pixels.

    Args:
        data: The encoded image.
        origin: What to call it in an error.

    Raises:
        SourceError: The data is no JPEG or PNG image, or one of more pixels than Pillow trusts.
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
    """What is asked of every image before it is decoded.

    Attributes:
        height: In pixels, for which a decoder will reserve memory.
        width: Likewise.
        is_plain: Whether every decoder shows it alike, or refuses it.
        is_regular: Whether it is put together as its format asks for.
    """

    height: int
    width: int
    is_plain: bool
    is_regular: bool


def look_at(data: NDArray[np.uint8], origin: str) -> Look:
    """Look at an image before it is decoded; quick, because it is done to every one.

    Args:
        data: uint8 (bytes,), the encoded image.
        origin: What to call it in an error.

    Raises:
        SourceError: The data is no JPEG or PNG image, or one of more pixels than Pillow trusts.
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
    """Decode all pixels of an image, converted to RGB as Pillow does.

    Raises:
        SourceError: The data is no image, or the image is damaged.
    """
    image = _open(sample.data, sample.origin)
    try:
        return as_rgb(image)
    except Exception as error:  # Pillow raises many types on broken data
        raise SourceError(f"{sample.origin} cannot be decoded, it is damaged: {error}") from error


def _check_size(height: int, width: int, origin: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise SourceError(
            f"{origin} is too large an image: {width} x {height} pixels, "
            f"at most {limit:,} are accepted"
        )


def _open(data: Encoded, origin: str) -> ImageFile:
    if not data:
        raise SourceError(f"{origin} is empty (0 bytes): it is no image")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise SourceError(f"{origin} is too large an image: {error}") from error
    except UnidentifiedImageError as error:  # whose text names a buffer in memory
        raise SourceError(
            f"{origin} is no JPEG or PNG image, whatever its name says: convert or remove it"
        ) from error
    except Exception as error:  # Pillow raises many types on broken headers
        if "MAX_TEXT" in str(error):
            raise SourceError(
                f"{origin} holds comments longer than Pillow reads: save it again without them"
            ) from error
        raise SourceError(f"{origin} is no JPEG or PNG image: {error}") from error
