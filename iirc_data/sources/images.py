"""Opening raw images with Pillow; what is no image is an error that names the file."""

import io

from PIL import Image
from PIL.ImageFile import ImageFile

from iirc_data.errors import SourceError
from iirc_data.sources.base import Sample

_FORMATS = ("JPEG", "PNG")


def open_image(sample: Sample) -> ImageFile:
    """Open an image by its header; its pixels are decoded when they are first asked for.

    Raises:
        SourceError: The data is no JPEG or PNG image, or one of more pixels than Pillow trusts.
    """
    if not sample.data:
        raise SourceError(f"{sample.origin} is empty (0 bytes): it is no image")
    try:
        image = Image.open(io.BytesIO(sample.data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise SourceError(f"{sample.origin} is too large an image: {error}") from error
    except Exception as error:  # Pillow raises many types on broken headers
        raise SourceError(f"{sample.origin} is no JPEG or PNG image: {error}") from error
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise SourceError(
            f"{sample.origin} is too large an image: {image.width} x {image.height} pixels, "
            f"at most {limit:,} are accepted"
        )
    return image


def decode_rgb(image: Image.Image, origin: str) -> Image.Image:
    """Decode all pixels of an image, converted to RGB as Pillow does.

    Args:
        image: From :func:`open_image`.
        origin: Where it came from, for errors.

    Raises:
        SourceError: The image is damaged.
    """
    try:
        return image.convert("RGB")
    except Exception as error:  # Pillow raises many types on broken data
        raise SourceError(f"{origin} cannot be decoded, it is damaged: {error}") from error
