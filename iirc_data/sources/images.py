"""Looking into raw images; what is no image is an error that names the file."""

import io
import struct
from typing import NamedTuple, TypeAlias

from PIL import Image
from PIL.ImageFile import ImageFile

from iirc_data.errors import SourceError
from iirc_data.sources.base import Sample

Encoded: TypeAlias = bytes | memoryview

RGB_OF_16_BITS = "RGB;16B"
"""RGB of 16 bits a channel, which Pillow calls ``RGB`` and other decoders round otherwise."""
GRAY_OF_16_BITS = "I;16B"
"""Gray of 16 bits, which Pillow calls ``I`` or ``I;16``, as its version is."""

_FORMATS = ("JPEG", "PNG")

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_JPEG_START = b"\xff\xd8"
_SCAN = 0xDA
_QUANTIZATION = 0xDB
_PLAIN_FRAMES = frozenset([0xC0, 0xC1, 0xC2])  # baseline, extended, progressive
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = frozenset([*range(0xC0, 0xD0), *range(0xDA, 0xFF)])
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
    header = _plain_jpeg_header(data)
    if header is None:
        image = _open(data, origin)
        stored = image.tile[0][3] if image.tile else None
        mode = stored if stored in (RGB_OF_16_BITS, GRAY_OF_16_BITS) else image.mode
        header = ImageHeader(image.height, image.width, str(mode))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and header.width * header.height > limit:
        raise SourceError(
            f"{origin} is too large an image: {header.width} x {header.height} pixels, "
            f"at most {limit:,} are accepted"
        )
    return header


def declared_size(data: Encoded, origin: str) -> tuple[int, int]:
    """Return the height and width that a decoder will reserve memory for.

    Quick, for it is asked of every image before it is decoded: of a PNG only the place is read
    where they stand.

    Args:
        data: The encoded image.
        origin: What to call it in an error.

    Raises:
        SourceError: The data is no JPEG or PNG image, or one of more pixels than Pillow trusts.
    """
    start = bytes(data[:24])
    if start.startswith(_PNG_START) and len(start) == 24:
        width, height = struct.unpack_from(">II", start, 16)
        return height, width
    return read_header(data, origin)[:2]


def decode_rgb(sample: Sample) -> Image.Image:
    """Decode all pixels of an image, converted to RGB as Pillow does.

    Raises:
        SourceError: The data is no image, or the image is damaged.
    """
    image = _open(sample.data, sample.origin)
    try:
        return image.convert("RGB")
    except Exception as error:  # Pillow raises many types on broken data
        raise SourceError(f"{sample.origin} cannot be decoded, it is damaged: {error}") from error


def _open(data: Encoded, origin: str) -> ImageFile:
    if not data:
        raise SourceError(f"{origin} is empty (0 bytes): it is no image")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise SourceError(f"{origin} is too large an image: {error}") from error
    except Exception as error:  # Pillow raises many types on broken headers
        raise SourceError(f"{origin} is no JPEG or PNG image: {error}") from error


def _plain_jpeg_header(data: Encoded) -> ImageHeader | None:
    """Read the header of a sound, plain JPEG; None for all others, at which Pillow shall look.

    Pillow parses every table that it passes, which took a third of the time of sharding.
    """
    if data[: len(_JPEG_START)] != _JPEG_START:
        return None
    header = None
    at = len(_JPEG_START)
    while at + 4 < len(data) and data[at] == 0xFF and data[at + 1] in _SEGMENTS:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        content = data[at + 4 : at + 2 + length]
        if len(content) != length - 2:
            return None
        if marker == _SCAN:
            return header
        if marker == _QUANTIZATION and not _are_plain_tables(content):
            return None
        if marker in _FRAMES:
            if header is not None or marker not in _PLAIN_FRAMES:
                return None
            header = _plain_frame(content)
            if header is None:
                return None
        at += 2 + length
    return None


def _are_plain_tables(content: Encoded) -> bool:
    """Tell whether these are quantization tables of 8 bits, each its number and 64 values."""
    return len(content) % 65 == 0 and max(content[::65], default=16) < 16


def _plain_frame(content: Encoded) -> ImageHeader | None:
    if len(content) < 6:
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", content)
    if precision != 8 or components not in _MODES or len(content) != 6 + 3 * components:
        return None
    return ImageHeader(height, width, _MODES[components]) if height and width else None
