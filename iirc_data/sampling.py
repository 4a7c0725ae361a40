"""Superclass and subclass sampling: the samples that each class shows in its task."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import SamplingSettings
from iirc_data.definitions import NO_LABEL


def rows_by_value(values: NDArray[Any]) -> dict[int, NDArray[np.int64]]:
    """Group row numbers by value.

    Args:
        values: Integers (N,).

    Returns:
        Maps each value, in ascending order, to its rows, int64 ascending.
    """
    if not len(values):
        return {}
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    groups = np.split(order.astype(np.int64, copy=False), starts[1:])
    return dict(zip(ordered[starts].tolist(), groups, strict=True))


def rows_by_combination(labels: NDArray[np.int32]) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Group row numbers by label combination.

    Args:
        labels: int32 (N, 2), see :func:`sample_rows_by_class`.

    Returns:
        Maps each pair of labels that occurs to its rows, int64 ascending.
    """
    n_labels = int(labels.max(initial=0)) + 2
    codes = labels[:, 0].astype(np.int64) * n_labels + (labels[:, 1] + 1)
    return {
        (code // n_labels, code % n_labels - 1): rows for code, rows in rows_by_value(codes).items()
    }


def sample_rows_by_class(
    labels: NDArray[np.int32],
    settings: SamplingSettings | None,
    sources: NDArray[np.int32] | None = None,
) -> dict[int, list[NDArray[np.int64]]]:
    """Return the samples that each class shows.

    Samples are grouped by label combination, as published. Of the n samples of a combination
    (superclass, subclass), in dataset order, the superclass shows the first ``int(p * n)`` and the
    subclass the last ``int(subclass_data_pct * n)``. Here p is ``superclass_data_pct``, scaled by
    cap / subclasses if the superclass has more subclasses than ``superclass_sampling_size_cap``.
    Samples with one label are always shown.

    If the fraction of a subclass rounds to 0 samples, the published code takes all samples (its
    slice is ``[-0:]``); here it takes none (see :func:`classes_with_empty_share`).

    Args:
        labels: int32 (N, 2): superclass and subclass, or the only label and ``NO_LABEL``.
        settings: Fractions and cap, or None to show every sample under all its labels (test mode,
            class-incremental setup).
        sources: int32 (N,), number of the class that a sample has in its dataset; None if every
            combination has one. The samples of each are divided on their own: otherwise superclass
            and subclass would show images of different datasets.

    Returns:
        Maps each class to the positions of its samples: per combination and source one ascending
        int64 array.
    """
    combinations = rows_by_combination(labels)
    shown: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
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


def _by_source(
    rows: NDArray[np.int64], sources: NDArray[np.int32] | None
) -> list[NDArray[np.int64]]:
    if sources is None:
        return [rows]
    return [rows[places] for places in rows_by_value(sources[rows]).values()]


def classes_with_empty_share(
    labels: NDArray[np.int32], rows_by_class: Mapping[int, Sequence[NDArray[np.int64]]]
) -> list[int]:
    """Return the classes for which a fraction of few samples rounded to 0.

    Args:
        labels: The labels given to :func:`sample_rows_by_class`.
        rows_by_class: Its result.

    Returns:
        The classes that show no sample and the subclasses that show none of a combination,
        ascending.
    """

    def is_subclass(index: int) -> bool:
        return bool((labels[:, 1] == index).any())

    return sorted(
        index
        for index, groups in rows_by_class.items()
        if not any(map(len, groups)) or (not all(map(len, groups)) and is_subclass(index))
    )


def _superclass_share(n_subclasses: int, settings: SamplingSettings) -> float:
    cap = settings.superclass_sampling_size_cap
    if n_subclasses > cap:
        # the published order of operations, because int(p * n) depends on the last bit
        return cap / n_subclasses * settings.superclass_data_pct
    return settings.superclass_data_pct
