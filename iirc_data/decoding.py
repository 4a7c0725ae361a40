"""Decoding one image with Pillow."""

import io
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from iirc_data.definitions import PathLike
from iirc_data.errors import LoaderError


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as Pillow does, so that it can be saved."""
    rgb = image.convert("RGB")
    if isinstance(rgb.info.get("transparency"), int):  # a level of gray, which RGB does not have
        del rgb.info["transparency"]
    return rgb


def decode(encoded: NDArray[Any], name: Callable[[], str]) -> Image.Image:
    """Decode one image to RGB, without turning it by its EXIF orientation.

    Args:
        encoded: uint8 (bytes,), JPEG or PNG.
        name: Gives what to call the image in an error.

    Raises:
        LoaderError: The image is damaged.
    """
    try:
        return as_rgb(Image.open(io.BytesIO(encoded.data)))
    except Exception as error:  # Pillow raises many types on broken data
        raise LoaderError(
            f"cannot decode {name()}: {error}; the image is damaged, make the shards anew"
        ) from error


def read_image(path: PathLike) -> Image.Image:
    """Read an image file as RGB, without turning it by its EXIF orientation.

    Raises:
        LoaderError: The file is missing, damaged, or no image.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(image)
    except Exception as error:  # Pillow raises many types on broken data
        raise LoaderError(
            f"cannot read image {path}: {error}; replace the file or leave it out of the dataset"
        ) from error
