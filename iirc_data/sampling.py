"""Sampling: the samples that each class of a taxonomy shows in its task."""

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import SamplingSettings
from iirc_data.definitions import NO_LABEL
from iirc_data.label_combinations import most_specific
from iirc_data.runs import Runs, joined


def sample_shares(
    labels: NDArray[np.int32],
    ranks: NDArray[np.int32],
    sizes: NDArray[np.int64],
    settings: SamplingSettings | None,
) -> NDArray[np.int64]:
    """Return how many samples of each group its labels show.

    Samples are grouped by label combination, as published. Of the n samples of a combination, a
    superclass shows ``int(p * n)`` and the leaf class ``int(subclass_data_pct * n)``; see
    :func:`shown_by_class` for which. Here p is the ``superclass_data_pct`` of the superclass's
    rank, scaled by cap / leaf classes if there are more leaf classes below the superclass than
    ``superclass_sampling_size_cap``. Samples with one label are always shown.

    If the fraction of a subclass rounds to 0 samples, the published code takes all samples (its
    slice is ``[-0:]``); here it takes none (see :func:`classes_with_empty_share`).

    Args:
        labels: int32 (G, L), the label combination of each group: superclasses, leaf class,
            ``NO_LABEL`` for none. Several groups may have the same combination.
        ranks: int32 (G, L), the rank of each label in its combination, from the top: 0, 1, ….
            Superclasses of the same level have the same rank.
        sizes: int64 (G,), number of samples of each group.
        settings: Fractions and cap, or None to show every sample under all its labels (test mode,
            class-incremental setup).

    Returns:
        int64 (G, L), 0 where there is no label.
    """
    is_label = labels != NO_LABEL
    everything = np.where(is_label, sizes[:, None], 0)
    if settings is None:
        return everything
    is_superclass = is_label & (np.arange(labels.shape[1]) < is_label.sum(axis=1)[:, None] - 1)
    pct = np.atleast_1d(settings.superclass_data_pct)
    of_ranks = pct[np.minimum(ranks, len(pct) - 1)]
    fractions = np.where(is_superclass, of_ranks, settings.subclass_data_pct)
    cap = settings.superclass_sampling_size_cap
    n_leaves = _numbers_of_leaves(labels, is_superclass)[labels]
    is_capped = is_superclass & (n_leaves > cap)
    # the published order of operations, because int(p * n) depends on the last bit
    fractions[is_capped] = cap / n_leaves[is_capped] * fractions[is_capped]
    shares = (fractions * sizes[:, None]).astype(np.int64)
    is_sampled = is_label & is_superclass.any(axis=1, keepdims=True)
    return np.where(is_sampled, shares, everything)


def shown_by_class(
    runs: Runs,
    labels: NDArray[np.int32],
    ranks: NDArray[np.int32],
    shares: NDArray[np.int64],
) -> Runs:
    """Return the positions of the samples that each class shows.

    Of the n samples of a combination with ranks 0 to K - 1, in dataset order, the label at rank k
    shows those from ``(n - share) * k // (K - 1)`` on. With two labels these are the first for the
    superclass and the last for the subclass, as published.

    Args:
        runs: Positions of the samples in the order of the dataset, with their groups.
        labels: int32 (G, L), see :func:`sample_shares`.
        ranks: int32 (G, L), likewise.
        shares: int64 (G, L), its result.

    Returns:
        The positions, whose groups are now the classes, class after class. A position occurs once
        for each class that shows it.
    """
    sizes = runs.sizes_of(len(labels))[:, None]
    last = np.maximum(ranks.max(axis=1, initial=0, keepdims=True), 1)
    first = (sizes - shares) * ranks // last
    parts = [
        runs.between(start[runs.groups], end[runs.groups])
        for start, end in zip(first.T, (first + shares).T, strict=True)
    ]
    columns = zip(parts, labels.T, strict=True)
    shown = joined([part.in_groups(label[part.groups]) for part, label in columns])
    return shown.take(np.argsort(shown.groups, kind="stable"))


def classes_with_empty_share(labels: NDArray[np.int32], shares: NDArray[np.int64]) -> list[int]:
    """Return the classes for which a fraction of few samples rounded to 0.

    Args:
        labels: What :func:`sample_shares` was given.
        shares: Its result.

    Returns:
        The classes that show no sample and the leaf classes that show none of a combination of
        several labels, ascending.
    """
    is_label = labels != NO_LABEL
    n_classes = int(labels.max(initial=NO_LABEL)) + 1
    empty = np.bincount(labels[is_label & (shares == 0)], minlength=n_classes) > 0
    shown = np.bincount(labels[is_label & (shares > 0)], minlength=n_classes) > 0
    several = is_label[:, 1]
    is_subclass = np.bincount(most_specific(labels)[several], minlength=n_classes) > 0
    return [int(index) for index in np.flatnonzero(empty & (is_subclass | ~shown))]


def _numbers_of_leaves(
    labels: NDArray[np.int32], is_superclass: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the number of leaf classes below each class, int64 (classes + 1,)."""
    n_classes = int(labels.max(initial=0)) + 1
    leaves = np.broadcast_to(most_specific(labels)[:, None], labels.shape)[is_superclass]
    codes = np.unique(labels[is_superclass].astype(np.int64) * n_classes + leaves)
    return np.bincount(codes // n_classes, minlength=n_classes + 1)
