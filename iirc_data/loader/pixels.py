"""Resizing, cropping and mirroring of decoded images on the CPU."""

from collections.abc import Callable, Sequence

import torch

from iirc_data.augment import Augmentation
from iirc_data.loader.engine import DecodeRequest, sizes_differ
from iirc_data.loader.memory import empty

_CPU = torch.device("cpu")
# bilinear with antialiasing on bytes, as Pillow does it, in a quarter of the time; unlike
# torch.nn.functional.interpolate, which calls it, it keeps pixels' channels together
_resize_bytes: Callable[..., torch.Tensor] = torch.ops.aten._upsample_bilinear2d_aa.out


def resize_and_crop(image: torch.Tensor, augmentation: Augmentation, number: int) -> torch.Tensor:
    """Carry out what follows the window and comes before mirroring, for one image.

    Args:
        image: uint8 (H, W, 3), the window.
        augmentation: A batch's parameters.
        number: The image's number in the batch.

    Returns:
        uint8 (H, W, 3).
    """
    if augmentation.resize is not None:
        height, width = augmentation.resize[number].tolist()
        image = _resize(image, height, width)
    if augmentation.crop is not None and augmentation.output_size is not None:
        top, left = augmentation.crop[number].tolist()
        image = _crop(image, top, left, *augmentation.output_size)
    return image


def stack(images: Sequence[torch.Tensor], request: DecodeRequest) -> torch.Tensor:
    """Mirror those images that the augmentation says, and make a batch.

    Args:
        images: uint8 (H, W, 3) each.
        request: What was asked for.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        LoaderError: The images differ in size.
    """
    sizes = {(image.shape[0], image.shape[1]) for image in images}
    if len(sizes) > 1:
        raise sizes_differ(request, sizes)
    batch = empty((len(images), *images[0].shape), torch.uint8, _CPU)
    flip = request.augmentation.flip.tolist()
    shown = [
        _mirror(image) if mirrored else image for image, mirrored in zip(images, flip, strict=True)
    ]
    return torch.stack(shown, out=batch)


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    resized = torch.empty((height, width, 3), dtype=torch.uint8)
    _resize_bytes(_planes(image), [height, width], False, None, None, out=_planes(resized))
    return resized


def _crop(image: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    bottom, right = top + height, left + width
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (height, width):
        return inside
    cropped = torch.zeros((height, width, 3), dtype=torch.uint8)
    y, x = max(-top, 0), max(-left, 0)
    cropped[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return cropped


def _mirror(image: torch.Tensor) -> torch.Tensor:
    return _planes(image).flip(3)[0].permute(1, 2, 0)


def _planes(image: torch.Tensor) -> torch.Tensor:
    """View (H, W, 3) as (1, 3, H, W), which torch's kernels know as channels-last."""
    return image.permute(2, 0, 1).unsqueeze(0)
