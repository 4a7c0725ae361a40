"""Resizing, cropping, mirroring and normalising images, several in one call.

A Python thread that calls one torch operator after another waits for the interpreter lock after
each of them: on images, two such threads together are hardly faster than one. A scripted function
runs all operators of several images without the lock.
"""

import warnings
from collections.abc import Callable

import torch


def resize_bytes(images: torch.Tensor, size: list[int], interpolation: str) -> torch.Tensor:
    """Resize images with antialiasing, as Pillow does it, in a quarter of the time.

    ``torch.nn.functional.interpolate`` would not return channels-last memory.

    Args:
        images: uint8 (1, 3, H, W), channels-last.
        size: Height and width in pixels.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        uint8 (1, 3, height, width), channels-last.
    """
    resized = torch.empty([1, size[0], size[1], 3], dtype=torch.uint8).permute(0, 3, 1, 2)
    if interpolation == "bicubic":
        torch.ops.aten._upsample_bicubic2d_aa(images, size, False, None, None, out=resized)
    else:
        torch.ops.aten._upsample_bilinear2d_aa(images, size, False, None, None, out=resized)
    return resized


def finish_in_python(
    windows: list[torch.Tensor],
    sizes: list[list[int]],
    interpolation: str,
    corners: list[tuple[int, int]],
    flips: list[bool],
    places: list[torch.Tensor],
    mean: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> None:
    """Finish images one by one, each while it is in the cache.

    Args:
        windows: uint8 (H, W, 3) each, decoded.
        sizes: Height and width to resize each image to; empty to leave its size.
        interpolation: How to resize, ``"bilinear"`` or ``"bicubic"``.
        corners: Top and left of the part to show of each resized image, which contains it.
        flips: Whether to mirror each image.
        places: (H, W, 3) each, contiguous; receive the result.
        mean: float32 (3 W,), subtracted from each row of pixels; None leaves uint8.
        scale: float32 (3 W,), the factors of each row; None leaves uint8.
    """
    for n in range(len(windows)):
        place = places[n]
        image = windows[n].permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W), channels-last
        if len(sizes[n]) > 0:
            image = resize_bytes(image, sizes[n], interpolation)
        top, left = corners[n]
        image = image.narrow(2, top, place.shape[0]).narrow(3, left, place.shape[1])
        if flips[n]:
            image = image.flip([3])  # in this layout torch moves whole pixels
        pixels = image[0].permute(1, 2, 0)
        if mean is not None and scale is not None:
            place.flatten(-2).copy_(pixels.flatten(-2)).sub_(mean).mul_(scale)
        else:
            place.copy_(pixels)


def _scripted() -> Callable[..., None]:
    """Return the function, scripted where torch still can; the results are the same."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, but nothing else releases the lock
            scripted: Callable[..., None] = torch.jit.script(finish_in_python)
    except Exception:  # a version of torch or Python without it raises any type
        return finish_in_python
    return scripted


finish = _scripted()
