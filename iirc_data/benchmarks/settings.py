"""Parts of a benchmark's definition: splits, sampling, and what differs between datasets."""

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from iirc_data.augment import IMAGE_PRESETS, ImagePreset
from iirc_data.definitions import ImageOrder

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _known_preset(name: str) -> str:
    if name not in IMAGE_PRESETS:
        known = " or ".join(map(repr, IMAGE_PRESETS))
        raise ValueError(f"no image preset is named {name!r}: choose {known}, or give an object")
    return name


NAME, OBJECT, NUMBER, LIST = TAGS = "a name", "an object", "a number", "a list"
"""Tags that pydantic adds to the location of an error in a field of several types."""

PresetOrName = Annotated[
    Annotated[str, AfterValidator(_known_preset), Tag(NAME)] | Annotated[ImagePreset, Tag(OBJECT)],
    Discriminator(lambda value: OBJECT if isinstance(value, dict | ImagePreset) else NAME),
]


FractionOrList = Annotated[
    Annotated[Fraction, Tag(NUMBER)] | Annotated[list[Fraction], Field(min_length=1), Tag(LIST)],
    Discriminator(lambda value: LIST if isinstance(value, list) else NUMBER),
]

FROZEN = ConfigDict(frozen=True, extra="forbid", strict=True)
"""A definition is read-only, strict about types, and without unknown fields."""


class SplitSettings(BaseModel):
    """Division of each class's training images, in the order of the dataset.

    Attributes:
        intask_valid_ratio: Fraction for in-task validation, taken first.
        posttask_valid_ratio: Fraction for post-task validation, taken next.
    """

    model_config = FROZEN

    intask_valid_ratio: Fraction = 0.1
    posttask_valid_ratio: Fraction = 0.1

    @model_validator(mode="after")
    def _leaves_training_samples(self) -> Self:
        if self.intask_valid_ratio + self.posttask_valid_ratio >= 1.0:
            raise ValueError(
                "intask_valid_ratio + posttask_valid_ratio must be below 1, "
                "to leave samples to train on"
            )
        return self


class SamplingSettings(BaseModel):
    """Numbers of training samples that superclasses and subclasses show.

    The defaults are those of the published ``Dataset`` constructor. The published benchmarks use
    0.4, 0.8 and 8.

    Attributes:
        superclass_data_pct: Fraction of each leaf class's samples shown under a superclass. A list
            gives the fraction of each level from the top; its last value holds for all levels
            below. If it is 1 / K for leaf classes with K labels, and so is ``subclass_data_pct``,
            no sample is shown at two levels.
        subclass_data_pct: Fraction of a leaf class's samples shown under the leaf class, where it
            has a superclass.
        superclass_sampling_size_cap: For a superclass with more leaf classes below it than this,
            ``superclass_data_pct`` is scaled by cap / leaf classes.
    """

    model_config = FROZEN

    superclass_data_pct: FractionOrList = 0.6
    subclass_data_pct: Fraction = 0.6
    superclass_sampling_size_cap: Annotated[int, Field(ge=1)] = 100


class DatasetSettings(BaseModel):
    """What a benchmark says of one of its datasets; None for what the whole benchmark says.

    Attributes:
        transforms: See :attr:`Benchmark.transforms`.
        image_order: See :attr:`Benchmark.image_order`.
        splits: See :class:`SplitSettings`.
    """

    model_config = FROZEN

    transforms: PresetOrName | None = None
    image_order: ImageOrder | None = None
    splits: SplitSettings | None = None
