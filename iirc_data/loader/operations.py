"""The operations of an augmentation (colours, AutoAugment), carried out with torchvision."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch

from iirc_data.augment import Operation
from iirc_data.loader.decoder import default_threads
from iirc_data.loader.host_memory import empty
from iirc_data.loader.per_process import PerProcess

Function = Callable[[torch.Tensor, float], torch.Tensor]


def changed(images: torch.Tensor, operations: Sequence[Sequence[Operation]] | None) -> torch.Tensor:
    """Apply each image's operations.

    Images are processed one by one in the same memory layout, so the result depends neither on the
    batch nor on the decoder.

    Args:
        images: uint8 (N, H, W, 3), cropped and mirrored.
        operations: The operations of each image, in order; None if no image has any.

    Returns:
        uint8 (N, H, W, 3), on the same device.
    """
    if operations is None:
        return images
    functions = _functions()

    def change(image: torch.Tensor, of_image: Sequence[Operation]) -> torch.Tensor:
        if not of_image:
            return image
        planes = image.permute(2, 0, 1).contiguous()
        for operation in of_image:
            planes = functions[operation.name](planes, operation.value)
        return planes.permute(1, 2, 0)

    each = _pool().get().map if images.device.type == "cpu" else map
    shown = list(each(change, images, operations))
    return torch.stack(shown, out=empty(images.shape, images.dtype, images.device))


@cache
def _pool() -> PerProcess[ThreadPoolExecutor]:
    return PerProcess(partial(ThreadPoolExecutor, default_threads(), "iirc-operations"))


@cache
def _functions() -> dict[str, Function]:
    from torchvision.transforms.v2 import functional as F

    def sheared(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
        result: torch.Tensor = F.affine(image, 0.0, [0, 0], 1.0, [x, y], center=[0, 0])
        return result

    def shifted(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
        result: torch.Tensor = F.affine(image, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])
        return result

    return {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
        "sharpness": F.adjust_sharpness,
        "shear_x": lambda image, degrees: sheared(image, degrees, 0.0),
        "shear_y": lambda image, degrees: sheared(image, 0.0, degrees),
        "translate_x": lambda image, pixels: shifted(image, pixels, 0.0),
        "translate_y": lambda image, pixels: shifted(image, 0.0, pixels),
        "rotate": F.rotate,
        "posterize": lambda image, bits: F.posterize(image, int(bits)),
        "solarize": F.solarize,
        "autocontrast": lambda image, _: F.autocontrast(image),
        "equalize": lambda image, _: F.equalize(image),
        "invert": lambda image, _: F.invert(image),
    }
