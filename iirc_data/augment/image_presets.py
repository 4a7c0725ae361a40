"""Image presets: augmentation and normalisation as data, for the ``transforms`` of a benchmark."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from iirc_data.augment.auto_augment import AutoAugment, Policy
from iirc_data.augment.color_jitter import ColorJitter
from iirc_data.augment.geometry import (
    Flipped,
    RandomCrop,
    RandomResizedCrop,
    ResizeCenterCrop,
    Unchanged,
)
from iirc_data.augment.operations import Change, Changed
from iirc_data.augment.parameters import Interpolation, Transform
from iirc_data.augment.preset import TransformPreset

MAX_PIXELS = 1 << 14  # of a side

Pixels = Annotated[int, Field(ge=1, le=MAX_PIXELS)]
_from_list = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Share = Annotated[float, Field(gt=0, le=1)]
Shares = Annotated[tuple[Share, Share], _from_list]
Ratio = Annotated[float, Field(gt=0, le=1000)]
Ratios = Annotated[tuple[Ratio, Ratio], _from_list]
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(gt=0)]
Means = Annotated[tuple[Mean, Mean, Mean], _from_list]
Stds = Annotated[tuple[Std, Std, Std], _from_list]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ImageSteps(_Data):
    """The steps applied to images, in the order of the attributes.

    Attributes:
        resize: Length of the shorter side after resizing, in pixels; None for no resizing.
        crop: ``"random"``, ``"random_resized"`` (a window of random area and aspect ratio, then
            resized), ``"center"``, or None for no crop. Height and width of the result are the
            preset's ``size``.
        interpolation: How images are resized, ``"bilinear"`` or ``"bicubic"``, with antialiasing.
        padding: Black pixels added on every side before a random crop.
        scale: Minimum and maximum area of a random resized crop, as a fraction of the image's.
        ratio: Minimum and maximum width / height of a random resized crop.
        flip: Mirror images left to right with probability 1/2.
        color_jitter: See :class:`~iirc_data.augment.color_jitter.ColorJitter`.
        auto_augment: Policy of AutoAugment, ``"cifar10"`` or ``"imagenet"``.
    """

    resize: Pixels | None = None
    crop: Literal["random", "random_resized", "center"] | None = None
    interpolation: Interpolation = "bilinear"
    padding: Annotated[int, Field(ge=0, le=MAX_PIXELS)] = 0
    scale: Shares = (0.08, 1.0)
    ratio: Ratios = (3 / 4, 4 / 3)
    flip: bool = False
    color_jitter: ColorJitter | None = None
    auto_augment: Policy | None = None

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.padding and self.crop != "random":
            raise ValueError('padding has no effect without "crop": "random"')
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} [{low}, {high}] is not ascending")
            is_set = (low, high) != type(self).model_fields[name].default
            if is_set and self.crop != "random_resized":
                raise ValueError(f'{name} has no effect without "crop": "random_resized"')
        is_resized = self.resize is not None or self.crop == "random_resized"
        if self.interpolation != "bilinear" and not is_resized:
            raise ValueError('interpolation has no effect without resize or "random_resized"')
        if self.resize is not None and self.crop not in ("random", "center"):
            raise ValueError('resize needs "crop": "random" or "center" to give images one size')
        return self

    @model_serializer(mode="wrap")
    def _without_the_default(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out bilinear interpolation: digests of presets are as before there was another."""
        values: dict[str, Any] = serialized(self)
        if self.interpolation == "bilinear":
            values.pop("interpolation", None)
        return values

    def transform(self, size: int | None) -> Transform:
        """Return the transform that carries out the steps.

        Args:
            size: Height and width of a crop in pixels.
        """
        shown: Transform = self._cropped(size)
        if self.flip:
            shown = Flipped(shown)
        changes: list[Change] = []
        if self.color_jitter is not None:
            changes.append(self.color_jitter)
        if self.auto_augment is not None:
            changes.append(AutoAugment(self.auto_augment))
        return Changed(shown, tuple(changes)) if changes else shown

    def _cropped(self, size: int | None) -> Transform:
        if self.crop is None or size is None:
            return Unchanged()
        if self.crop == "random":
            return RandomCrop(size, self.padding, self.resize, self.interpolation)
        if self.crop == "random_resized":
            return RandomResizedCrop(size, self.scale, self.ratio, self.interpolation)
        return ResizeCenterCrop(self.resize, size, self.interpolation)


class ImagePreset(_Data):
    """Augmentation and normalisation of a dataset's images.

    Attributes:
        size: Height and width of a crop in pixels; None if neither training nor evaluation crops.
        train: Steps applied to training images.
        evaluate: Steps applied to all other images: only ``resize`` and a center ``crop``.
        mean: Mean of each colour channel, for values in [0, 1].
        std: Standard deviation of each colour channel, for values in [0, 1].
    """

    size: Pixels | None = None
    train: ImageSteps = ImageSteps()
    evaluate: ImageSteps = ImageSteps()
    mean: Means
    std: Stds

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.evaluate.crop not in (None, "center"):
            raise ValueError(f'evaluate.crop is "{self.evaluate.crop}", expected "center" or none')
        for name in ("flip", "color_jitter", "auto_augment"):
            if getattr(self.evaluate, name):
                raise ValueError(f"evaluate.{name} is random: use it in train only")
        for name, steps in (("train", self.train), ("evaluate", self.evaluate)):
            if steps.crop is not None and self.size is None:
                raise ValueError(f"size is missing: {name}.crop needs it")
            if steps.resize is not None and self.size is not None and steps.resize < self.size:
                raise ValueError(f"{name}.resize {steps.resize} is less than size {self.size}")
        if self.size is not None and self.train.crop is None and self.evaluate.crop is None:
            raise ValueError(f"size {self.size} has no effect without train.crop or evaluate.crop")
        return self

    @cached_property
    def transforms(self) -> TransformPreset:
        """The preset as transforms, for a loader."""
        return TransformPreset(
            train=self.train.transform(self.size),
            evaluate=self.evaluate.transform(self.size),
            mean=self.mean,
            std=self.std,
        )


_CIFAR_STEPS = ImageSteps(crop="random", padding=4, flip=True)
_CIFAR100 = ImagePreset(
    size=32, train=_CIFAR_STEPS, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)
)
_PYCIL_JITTER = ColorJitter(brightness=63 / 255)

IMAGE_PRESETS = {
    "cifar": ImagePreset(
        size=32,
        train=_CIFAR_STEPS,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2009, 0.1984, 0.2023),
    ),
    "imagenet": ImagePreset(
        size=224,
        train=ImageSteps(crop="random_resized", flip=True),
        evaluate=ImageSteps(resize=256, crop="center"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "cifar10": ImagePreset(
        size=32, train=_CIFAR_STEPS, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2615)
    ),
    "cifar100": _CIFAR100,
    "cifar100_pycil": _CIFAR100.model_copy(
        update={"train": _CIFAR_STEPS.model_copy(update={"color_jitter": _PYCIL_JITTER})}
    ),
    "tiny_imagenet": ImagePreset(
        size=64,
        train=_CIFAR_STEPS,
        mean=(0.4802, 0.4480, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
    ),
}
"""The presets that a benchmark can name.

``cifar`` has the statistics of the published package ``iirc`` (and of LUCIR), ``cifar10``,
``cifar100`` and ``tiny_imagenet`` those of Mammoth; ``cifar100_pycil`` is ``cifar100`` with PyCIL's
colour jitter.
"""

TRANSFORM_PRESETS: Mapping[str, TransformPreset] = {
    name: preset.transforms for name, preset in IMAGE_PRESETS.items()
}
"""The same presets as transforms."""
