"""Superclass and subclass sampling: the samples that each class shows in its task."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import SamplingSettings
from iirc_data.definitions import NO_LABEL
from iirc_data.grouping import grouped, rows_by_value

Rows = range | NDArray[np.int64]
"""Positions of samples, ascending."""

Combinations = Mapping[tuple[int, int], Rows]
"""Maps each label combination, of class indices, to its samples."""


@dataclass(frozen=True)
class CombinedLabels:
    """The labels of samples that share few label combinations.

    Attributes:
        labels: int32 (C, 2), the distinct combinations: superclass and subclass, or the only label
            and ``NO_LABEL``.
        combination: int32 (N,), the number of each sample's combination.
    """

    labels: NDArray[np.int32]
    combination: NDArray[np.int32]

    @classmethod
    def of(cls, labels: NDArray[np.int32]) -> Self:
        """Find the combinations among the labels, int32 (N, 2), of samples."""
        n_labels = int(labels.max(initial=0)) + 2
        codes = labels[:, 0].astype(np.int64) * n_labels + (labels[:, 1] + 1)
        distinct, combination = np.unique(codes, return_inverse=True)
        pairs = np.stack([distinct // n_labels, distinct % n_labels - 1], axis=1)
        return cls(pairs.astype(np.int32), combination.astype(np.int32))


def rows_by_combination(labels: CombinedLabels) -> dict[tuple[int, int], Rows]:
    """Group the positions of samples by label combination, for those that occur."""
    groups = grouped(labels.combination)
    pairs = map(tuple, labels.labels[groups.values].tolist())
    return dict(zip(pairs, groups.each(), strict=True))


def sample_rows_by_class(
    combinations: Combinations,
    settings: SamplingSettings | None,
    sources: NDArray[np.int32] | None = None,
) -> dict[int, list[Rows]]:
    """Return the samples that each class shows.

    Samples are grouped by label combination, as published. Of the n samples of a combination
    (superclass, subclass), in dataset order, the superclass shows the first ``int(p * n)`` and the
    subclass the last ``int(subclass_data_pct * n)``. Here p is ``superclass_data_pct``, scaled by
    cap / subclasses if the superclass has more subclasses than ``superclass_sampling_size_cap``.
    Samples with one label are always shown.

    If the fraction of a subclass rounds to 0 samples, the published code takes all samples (its
    slice is ``[-0:]``); here it takes none (see :func:`classes_with_empty_share`).

    Args:
        combinations: See :func:`rows_by_combination`.
        settings: Fractions and cap, or None to show every sample under all its labels (test mode,
            class-incremental setup).
        sources: int32 (N,), number of the class that a sample has in its dataset; None if every
            combination has one. The samples of each are divided on their own: otherwise superclass
            and subclass would show images of different datasets.

    Returns:
        Maps each class to the positions of its samples, for each combination and source.
    """
    shown: dict[int, list[Rows]] = defaultdict(list)
    n_subclasses = Counter(first for first, second in combinations if second != NO_LABEL)
    parts = (
        (first, second, rows)
        for (first, second), of_combination in combinations.items()
        for rows in _by_source(of_combination, sources)
    )
    for first, second, rows in parts:
        if second == NO_LABEL:
            shown[first].append(rows)
        elif settings is None:
            shown[first].append(rows)
            shown[second].append(rows)
        else:
            n_superclass = int(_superclass_share(n_subclasses[first], settings) * len(rows))
            n_subclass = int(settings.subclass_data_pct * len(rows))
            shown[first].append(rows[:n_superclass])
            shown[second].append(rows[len(rows) - n_subclass :])
    return dict(shown)


def _by_source(rows: Rows, sources: NDArray[np.int32] | None) -> list[Rows]:
    if sources is None:
        return [rows]
    numbers = np.asarray(rows, np.int64)
    return [numbers[places] for places in rows_by_value(sources[numbers]).values()]


def classes_with_empty_share(
    combinations: Combinations, rows_by_class: Mapping[int, Sequence[Rows]]
) -> list[int]:
    """Return the classes for which a fraction of few samples rounded to 0.

    Args:
        combinations: What :func:`sample_rows_by_class` was given.
        rows_by_class: Its result.

    Returns:
        The classes that show no sample and the subclasses that show none of a combination,
        ascending.
    """
    subclasses = {second for _, second in combinations}
    return sorted(
        index
        for index, groups in rows_by_class.items()
        if not any(map(len, groups)) or (not all(map(len, groups)) and index in subclasses)
    )


def _superclass_share(n_subclasses: int, settings: SamplingSettings) -> float:
    cap = settings.superclass_sampling_size_cap
    if n_subclasses > cap:
        # the published order of operations, because int(p * n) depends on the last bit
        return cap / n_subclasses * settings.superclass_data_pct
    return settings.superclass_data_pct
