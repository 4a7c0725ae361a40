"""Encodes names of labels as indicator vectors."""

from collections.abc import Iterable, Sequence

import torch


def transform_labels_names_to_vector(
    labels_names: Iterable[str] | Sequence[Iterable[str]],
    num_seen_classes: int,
    class_names_to_idx: dict[str, int],
) -> torch.Tensor:
    """Encode label names as indicator vectors.

    Args:
        labels_names: Names of the labels of each sample, or of a single sample. Names that are not
            classes (such as ``NO_LABEL_PLACEHOLDER``) and classes not seen yet are ignored.
        num_seen_classes: Length of a vector.
        class_names_to_idx: Index of each class.

    Returns:
        float32 (N, num_seen_classes), or (num_seen_classes,) for a single sample.
    """
    each = list(labels_names)
    if each and all(isinstance(names, str) for names in each):
        return _indicator(map(str, each), num_seen_classes, class_names_to_idx)
    vectors = [_indicator(names, num_seen_classes, class_names_to_idx) for names in each]
    return torch.stack(vectors) if vectors else torch.zeros(0, num_seen_classes)


def _indicator(names: Iterable[str], length: int, indices: dict[str, int]) -> torch.Tensor:
    vector = torch.zeros(length)
    known = [indices[name] for name in names if indices.get(name, length) < length]
    vector[known] = 1.0
    return vector
