"""The images that a pretrained network expects, and a benchmark's image preset at that size."""

from dataclasses import dataclass

from iirc_data.augment.image_presets import ImagePreset, ImageSteps


@dataclass(frozen=True)
class NetworkImages:
    """The images that a network was trained on.

    Attributes:
        size: Height and width in pixels.
        resize: Length in pixels to which the shorter side is resized before the central crop.
        mean: Mean of each colour channel, for values in [0, 1].
        std: Standard deviation of each colour channel, for values in [0, 1].
        interpolation: Name of the interpolation that the network was evaluated with. Loaders
            resize bilinearly, with antialiasing.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"


def preset_for(images: NetworkImages, preset: ImagePreset) -> ImagePreset:
    """Return a preset with the images that a network expects, and the augmentation of another one.

    Images are evaluated as the network was: the shorter side resized, then a central crop. In
    training, the kind of augmentation stays. A random resized crop is resized to the network's
    size; before a random crop, images are resized to it, and the padding is scaled.

    Args:
        images: What the network expects.
        preset: The preset of a benchmark.
    """
    size, steps = images.size, preset.train
    evaluate = ImageSteps(resize=images.resize, crop="center")
    changes: dict[str, object] = {}
    if steps.crop == "random" and preset.size is not None:
        shorter = preset.size if steps.resize is None else steps.resize
        scale = size / preset.size
        changes = {"resize": round(shorter * scale), "padding": round(steps.padding * scale)}
    elif steps.crop != "random_resized":
        changes = {"resize": images.resize, "crop": "center"}
    return ImagePreset(
        size=size,
        train=steps.model_copy(update=changes),
        evaluate=evaluate,
        mean=images.mean,
        std=images.std,
    )
