"""Augmentation parameters as pure functions of image sizes, seed, epoch and position.

A transform maps image sizes and random numbers to plain arrays, and the loader carries these out.
Every decoder therefore produces the same crops and changes, and a run can resume at any batch.
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
    Interpolation,
    Operation,
    Places,
    Transform,
    uniform,
)
from iirc_data.augment.per_dataset import PerDataset
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
    "Interpolation",
    "Operation",
    "PerDataset",
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
