"""Published API: the samples of a lifelong dataset: images by index, labels by combination."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import FEWEST_LABELS, NO_LABEL_PLACEHOLDER, Labels
from iirc_data.errors import BenchmarkError
from iirc_data.label_combinations import label_combinations


class ImageSequence(Protocol):
    """Images or paths by index, each created on access."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> Any:
        """Return a Pillow image or a path."""


@dataclass(frozen=True, eq=False)
class SampleLabels:
    """The labels of many samples. Each combination that occurs is stored once.

    Attributes:
        combinations: ``(superclass, …, subclass)`` or ``(class,)``.
        numbers: int32 (N,), index of each sample's labels in ``combinations``.
        ranks: int32 (combinations, L), see :func:`iirc_data.sampling.sample_shares`; None if no
            two labels of a combination have the same.
    """

    combinations: tuple[Labels, ...]
    numbers: NDArray[np.int32]
    ranks: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, dataset: Sequence[tuple[Any, Labels]]) -> Self:
        """Collect the labels of a sequence of ``(image, labels)``.

        Raises:
            BenchmarkError: A sample is not such a pair, or its labels are not different class
                names. The message names the sample.
        """
        known: dict[Labels, int] = {}
        numbers = np.empty(len(dataset), np.int32)
        for position, sample in enumerate(dataset):
            labels = _labels_of(sample, position)
            number = known.get(labels)
            if number is None:
                _check_labels(labels, position)
                number = known[labels] = len(known)
            numbers[position] = number
        return cls(tuple(known), numbers)

    def __getitem__(self, position: int) -> Labels:
        return self.combinations[self.numbers[position]]

    def class_indices(self, class_names_to_idx: dict[str, int]) -> NDArray[np.int32]:
        """Return the labels as class indices.

        Args:
            class_names_to_idx: Indices of the scheduled classes. Other classes get the indices that
                follow.

        Returns:
            int32 (N, L), -1 for none; L is ``width``.
        """
        return label_combinations(self.combinations, class_names_to_idx)[self.numbers]

    @cached_property
    def width(self) -> int:
        """The most labels that a sample has, at least 2."""
        return max(FEWEST_LABELS, *map(len, self.combinations))

    def having(self, class_name: str) -> NDArray[np.bool_]:
        """Return which combinations contain a class, bool (combinations,)."""
        return np.array([class_name in labels for labels in self.combinations], dtype=bool)


@dataclass(frozen=True, eq=False)
class Samples(Sequence[tuple[Any, Labels]]):
    """A sequence of ``(image, labels)`` that stores arrays instead of one object per sample.

    Attributes:
        images: The images or paths.
        image_numbers: int64 (N,), index of each sample's image in ``images``.
        labels: The labels of the samples.
    """

    images: ImageSequence
    image_numbers: NDArray[np.int64]
    labels: SampleLabels

    def __len__(self) -> int:
        return len(self.image_numbers)

    @overload
    def __getitem__(self, index: int) -> tuple[Any, Labels]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, Labels]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Any, Labels] | list[tuple[Any, Labels]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self.images[int(self.image_numbers[index])], self.labels[index]


def _labels_of(sample: Any, position: int) -> Labels:
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise BenchmarkError(f"sample {position} is {sample!r:.60}, expected (image, (label, ...))")
    labels = sample[1]
    if not isinstance(labels, tuple | list) or not all(isinstance(name, str) for name in labels):
        raise BenchmarkError(
            f"sample {position} has the labels {labels!r:.60}, expected a tuple of class names: "
            "(label,) or (superclass, ..., subclass)"
        )
    return tuple(map(str, labels))


def _check_labels(labels: Labels, position: int) -> None:
    if not labels or len(set(labels)) != len(labels):
        raise BenchmarkError(
            f"sample {position} has the labels {labels}, expected different class names"
        )
    if NO_LABEL_PLACEHOLDER in labels:
        raise BenchmarkError(
            f"sample {position} has the labels {labels}, but {NO_LABEL_PLACEHOLDER!r} stands for "
            "no label: omit it, or rename the class"
        )
