"""Label combinations as arrays of class indices."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import FEWEST_LABELS, NO_LABEL, NO_LABEL_PLACEHOLDER, Labels
from iirc_data.taxonomy import Taxonomy


def label_combinations(
    combinations: Iterable[Labels], class_names_to_idx: Mapping[str, int]
) -> NDArray[np.int32]:
    """Return label combinations as class indices.

    Args:
        combinations: The names of the superclasses and the leaf class of each.
        class_names_to_idx: Indices of the scheduled classes; other classes get the indices after
            them.

    Returns:
        int32 (combinations, L), -1 for none; L is the length of the longest, at least 2.
    """
    indices = dict(class_names_to_idx)
    return _filled(
        [[indices.setdefault(label, len(indices)) for label in labels] for labels in combinations],
        NO_LABEL,
    )


def label_ranks(taxonomy: Taxonomy, leaf_classes: Iterable[str]) -> NDArray[np.int32] | None:
    """Return the ranks of the labels of leaf classes, see :meth:`Taxonomy.ranks_of`.

    Returns:
        int32 (leaf classes, L), 0 where there is no label; L as in :func:`label_combinations`. None
        in a tree, where no two labels of a leaf class have the same rank.
    """
    return None if taxonomy.is_tree else _filled(list(map(taxonomy.ranks_of, leaf_classes)), 0)


def ranks_in_order(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the ranks of labels (N, L) each of which is a superclass of the next, int32 (N, L)."""
    return np.where(labels == NO_LABEL, 0, np.arange(labels.shape[1], dtype=np.int32))


def joined_labels(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Concatenate labels of different widths, int32 (N, L) each; at least one is needed."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([with_width(part, width) for part in parts])


def with_width(labels: NDArray[np.int32], width: int) -> NDArray[np.int32]:
    """Return labels, int32 (N, L), with at least ``width`` columns."""
    n_added = width - labels.shape[1]
    if n_added <= 0:
        return labels
    return np.pad(labels, ((0, 0), (0, n_added)), constant_values=NO_LABEL)


def names_of_labels(indices: NDArray[np.int32], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a sample's labels, ``NO_LABEL_PLACEHOLDER`` for none.

    Args:
        indices: int32 (L,), indices into ``names``, -1 for none.
        names: Names of labels.
    """
    return tuple(NO_LABEL_PLACEHOLDER if i == NO_LABEL else names[i] for i in indices.tolist())


def most_specific(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the last label of each sample, int64 (N,).

    Args:
        labels: int32 (N, L), class indices, superclass before subclass, -1 for none.
    """
    last = (labels != NO_LABEL).sum(axis=1, keepdims=True) - 1
    return np.take_along_axis(labels, last, axis=1)[:, 0].astype(np.int64)


def distinct_combinations(
    labels: NDArray[np.int32], sources: NDArray[np.int32] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group samples by label combination and source.

    Args:
        labels: int32 (N, L), class indices, -1 for none.
        sources: int32 (N,), further numbers to tell apart; None for none.

    Returns:
        A sample of each group, int64 (G,), and the group of each sample, int64 (N,). Groups are in
        the order of source, then of the labels.
    """
    n_labels = int(labels.max(initial=0)) + 2
    codes = labels[:, 0].astype(np.int64)
    for column in labels.T[1:-1]:
        codes = np.unique(codes * n_labels + (column + 1), return_inverse=True)[1]
    codes = codes * n_labels + (labels[:, -1] + 1)
    if sources is not None:
        codes += sources.astype(np.int64) * (int(codes.max(initial=0)) + 1)
    _, first, groups = np.unique(codes, return_index=True, return_inverse=True)
    return first, groups


def visible_labels(labels: NDArray[np.int32], visible: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Hide labels, and move the remaining ones to the front.

    Args:
        labels: int32 (N, L), class indices, -1 for none.
        visible: bool (classes + 1,), whether the label of each class is visible; the last entry,
            for -1, is False.

    Returns:
        int32 (N, L).
    """
    shown = np.where(visible[labels], labels, np.int32(NO_LABEL))
    to_front = np.argsort(shown == NO_LABEL, axis=1, kind="stable")
    return np.take_along_axis(shown, to_front, axis=1)


def _filled(rows: Sequence[Sequence[int]], value: int) -> NDArray[np.int32]:
    lengths = np.array(list(map(len, rows)), np.int64)
    width = int(lengths.max(initial=FEWEST_LABELS))
    filled = np.full((len(rows), width), value, np.int32)
    filled[np.arange(width) < lengths[:, None]] = list(chain.from_iterable(rows))
    return filled
