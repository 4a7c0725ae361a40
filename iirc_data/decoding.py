"""Decoding with Pillow."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iirc_data.definitions import PathLike
from iirc_data.errors import LoaderError

_DEEP_GRAY = ("I;16", "I;16B")


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as Pillow does, in a form that can be saved.

    Unlike Pillow, which shows 16-bit gray levels above 255 as white, this takes their upper 8 bits,
    as Pillow does in colour images. Signed 16-bit levels are converted as Pillow does.
    """
    if image.mode in _DEEP_GRAY or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    rgb = image.convert("RGB")
    if isinstance(rgb.info.get("transparency"), int):  # a gray level, which is not valid in RGB
        del rgb.info["transparency"]
    return rgb


def decode(encoded: NDArray[Any], name: Callable[[], str]) -> Image.Image:
    """Decode one image to RGB; its EXIF orientation is ignored.

    Args:
        encoded: uint8 (bytes,), JPEG or PNG.
        name: Returns the image's name for error messages.

    Raises:
        LoaderError: The image is damaged.
    """
    try:
        return as_rgb(Image.open(io.BytesIO(encoded.data)))
    except Exception as error:  # Pillow raises many types on broken data
        raise LoaderError(
            f"cannot decode {name()}: {error}; the image is damaged: make the shards again"
        ) from error


def read_image(path: PathLike) -> Image.Image:
    """Read an image file as RGB; its EXIF orientation is ignored.

    Raises:
        LoaderError: The file is missing, damaged, or not an image.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(image)
    except Exception as error:  # Pillow raises many types on broken data
        raise LoaderError(
            f"cannot read image {path}: {error}; replace the file or leave it out of the dataset"
        ) from error
