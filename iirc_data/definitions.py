"""Constants and types that every layer shares; published names keep their published values."""

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from PIL import Image

PYTORCH = "PyTorch"
TENSORFLOW = "Tensorflow"

CIL_SETUP: Final = "CIL"
"""Class-incremental learning: every sample has one label."""
IIRC_SETUP: Final = "IIRC"
"""Incremental implicitly-refined classification: a sample may have superclasses and a subclass."""

NO_LABEL_PLACEHOLDER = "None"
"""Placeholder for the labels of a sample that shows fewer than others."""
NO_LABEL = -1
"""The same placeholder where labels are class indices."""
FEWEST_LABELS: Final = 2
"""Fewest labels of a sample, with placeholders: as published, also without superclasses."""

TRAIN: Final = "train"
INTASK_VALID: Final = "intask_valid"
POSTTASK_VALID: Final = "posttask_valid"
TEST: Final = "test"

ORDER_BLOCKS: Final = 64
"""Blocks of 4 MiB that the bounded order of an epoch works through at a time, by default."""

DecoderName: TypeAlias = Literal["auto", "dali", "pillow"]
OrderName: TypeAlias = Literal["exact", "bounded"]
ImageOrder: TypeAlias = Literal["dataset", "published_imagenet"]
Setup: TypeAlias = Literal["IIRC", "CIL"]
SplitName: TypeAlias = Literal["train", "intask_valid", "posttask_valid", "test"]
Labels: TypeAlias = tuple[str, ...]
Item: TypeAlias = tuple[Any, *Labels]
"""An image and its labels, ``NO_LABEL_PLACEHOLDER`` for none; as many for every sample."""
DatasetStructType: TypeAlias = list[tuple[Image.Image, Labels]] | list[tuple[str, Labels]]
PathLike: TypeAlias = str | Path

_FORMER_DECODER_NAMES: Final = {"torch": "pillow"}


def current_decoder_name(name: Any) -> Any:
    """Return the current name of a decoder; anything but a former name is returned unchanged."""
    return _FORMER_DECODER_NAMES.get(name, name) if isinstance(name, str) else name
