"""Augmentation: pure functions of image sizes, seed, epoch and place in the epoch.

A transform turns image sizes and random numbers into plain arrays; the loader only carries them
out. So every decoder shows the same images, and a run resumes anywhere.
"""

from iirc_data.augment.auto_augment import AutoAugment
from iirc_data.augment.color_jitter import ColorJitter
from iirc_data.augment.geometry import (
    Flipped,
    RandomCrop,
    RandomCropFlip,
    RandomResizedCrop,
    RandomResizedCropFlip,
    ResizeCenterCrop,
    Unchanged,
)
from iirc_data.augment.image_presets import (
    IMAGE_PRESETS,
    TRANSFORM_PRESETS,
    ImagePreset,
    ImageSteps,
)
from iirc_data.augment.operations import Change, Changed
from iirc_data.augment.parameters import (
    Augmentation,
    Integers,
    Operation,
    Places,
    Transform,
    uniform,
)
from iirc_data.augment.preset import TransformPreset

__all__ = [
    "IMAGE_PRESETS",
    "TRANSFORM_PRESETS",
    "Augmentation",
    "AutoAugment",
    "Change",
    "Changed",
    "ColorJitter",
    "Flipped",
    "ImagePreset",
    "ImageSteps",
    "Integers",
    "Operation",
    "Places",
    "RandomCrop",
    "RandomCropFlip",
    "RandomResizedCrop",
    "RandomResizedCropFlip",
    "ResizeCenterCrop",
    "Transform",
    "TransformPreset",
    "Unchanged",
    "uniform",
]
