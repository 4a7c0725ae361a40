"""Superclass and subclass sampling: the samples that each class shows in its task."""

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import SamplingSettings
from iirc_data.definitions import NO_LABEL
from iirc_data.runs import Runs, joined


def sample_shares(
    labels: NDArray[np.int32], sizes: NDArray[np.int64], settings: SamplingSettings | None
) -> NDArray[np.int64]:
    """Return how many samples of each group its labels show.

    Samples are grouped by label combination, as published. Of the n samples of a combination
    (superclass, subclass), in dataset order, the superclass shows the first ``int(p * n)`` and the
    subclass the last ``int(subclass_data_pct * n)``. Here p is ``superclass_data_pct``, scaled by
    cap / subclasses if the superclass has more subclasses than ``superclass_sampling_size_cap``.
    Samples with one label are always shown.

    If the fraction of a subclass rounds to 0 samples, the published code takes all samples (its
    slice is ``[-0:]``); here it takes none (see :func:`classes_with_empty_share`).

    Args:
        labels: int32 (G, 2), the label combination of each group: superclass and subclass, or the
            only label and ``NO_LABEL``. Several groups may have the same combination.
        sizes: int64 (G,), number of samples of each group.
        settings: Fractions and cap, or None to show every sample under all its labels (test mode,
            class-incremental setup).

    Returns:
        int64 (G, 2), for the first and the second label.
    """
    has_two = labels[:, 1] != NO_LABEL
    if settings is None:
        return np.stack([sizes, np.where(has_two, sizes, 0)], axis=1)
    n_classes = int(labels.max(initial=0)) + 1
    n_subclasses = _numbers_of_subclasses(labels[has_two], n_classes)[labels[:, 0]]
    share = np.full(len(labels), settings.superclass_data_pct)
    cap = settings.superclass_sampling_size_cap
    is_capped = n_subclasses > cap
    # the published order of operations, because int(p * n) depends on the last bit
    share[is_capped] = cap / n_subclasses[is_capped] * settings.superclass_data_pct
    shares = np.stack([share * sizes, settings.subclass_data_pct * sizes], axis=1).astype(np.int64)
    return np.where(has_two[:, None], shares, np.stack([sizes, np.zeros_like(sizes)], axis=1))


def shown_by_class(runs: Runs, labels: NDArray[np.int32], shares: NDArray[np.int64]) -> Runs:
    """Return the positions of the samples that each class shows.

    Args:
        runs: Positions of the samples in the order of the dataset, with their groups.
        labels: int32 (G, 2), see :func:`sample_shares`.
        shares: int64 (G, 2), its result.

    Returns:
        The positions, whose groups are now the classes, class after class. A position occurs once
        for each class that shows it.
    """
    sizes = runs.group_sizes()
    n_first, n_second = shares[runs.groups].T
    parts = runs.between(0, n_first), runs.between(sizes - n_second, sizes)
    columns = zip(parts, labels.T, strict=True)
    shown = joined([part.in_groups(label[part.groups]) for part, label in columns])
    return shown.take(np.argsort(shown.groups, kind="stable"))


def classes_with_empty_share(labels: NDArray[np.int32], shares: NDArray[np.int64]) -> list[int]:
    """Return the classes for which a fraction of few samples rounded to 0.

    Args:
        labels: What :func:`sample_shares` was given.
        shares: Its result.

    Returns:
        The classes that show no sample and the subclasses that show none of a combination,
        ascending.
    """
    is_label = labels != NO_LABEL
    n_classes = int(labels.max(initial=NO_LABEL)) + 1
    empty = np.bincount(labels[is_label & (shares == 0)], minlength=n_classes) > 0
    shown = np.bincount(labels[is_label & (shares > 0)], minlength=n_classes) > 0
    is_subclass = np.bincount(labels[is_label[:, 1], 1], minlength=n_classes) > 0
    return [int(index) for index in np.flatnonzero(empty & (is_subclass | ~shown))]


def _numbers_of_subclasses(pairs: NDArray[np.int32], n_classes: int) -> NDArray[np.int64]:
    """Return for each class the number of distinct subclasses in (superclass, subclass) pairs."""
    codes = np.unique(pairs[:, 0].astype(np.int64) * n_classes + pairs[:, 1])
    return np.bincount(codes // n_classes, minlength=n_classes)
