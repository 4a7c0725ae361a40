"""The images that a pretrained network expects, and a benchmark's image preset at that size."""

from dataclasses import dataclass
from typing import get_args

from iirc_data.augment.image_presets import ImagePreset, ImageSteps
from iirc_data.augment.parameters import Interpolation


@dataclass(frozen=True)
class NetworkImages:
    """The images that a network was trained on.

    Attributes:
        size: Height and width in pixels.
        resize: Length in pixels to which the shorter side is resized before the central crop.
        mean: Mean of each colour channel, for values in [0, 1].
        std: Standard deviation of each colour channel, for values in [0, 1].
        interpolation: How images were resized, ``"bilinear"`` or ``"bicubic"``.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Check the interpolation.

        Raises:
            ValueError: It is not one of those that loaders have.
        """
        if self.interpolation not in (known := get_args(Interpolation)):
            raise ValueError(f"interpolation {self.interpolation!r} is not {' or '.join(known)}")


def preset_for(images: NetworkImages, preset: ImagePreset) -> ImagePreset:
    """Return a preset with the images that a network expects, and the augmentation of another one.

    Images are evaluated as the network was: the shorter side resized, then a central crop. In
    training, the kind of augmentation stays. A random resized crop is resized to the network's
    size; before a random crop, images are resized to it, and the padding is scaled. The network's
    interpolation serves both.

    Args:
        images: What the network expects.
        preset: The preset of a benchmark.
    """
    size, steps = images.size, preset.train
    evaluate = ImageSteps(resize=images.resize, crop="center", interpolation=images.interpolation)
    changes: dict[str, object] = {"interpolation": images.interpolation}
    if steps.crop == "random" and preset.size is not None:
        shorter = preset.size if steps.resize is None else steps.resize
        scale = size / preset.size
        changes |= {"resize": round(shorter * scale), "padding": round(steps.padding * scale)}
    elif steps.crop != "random_resized":
        changes |= {"resize": images.resize, "crop": "center"}
    return ImagePreset(
        size=size,
        train=steps.model_copy(update=changes),
        evaluate=evaluate,
        mean=images.mean,
        std=images.std,
    )
