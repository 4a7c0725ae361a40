"""The metrics of the IIRC paper (Abdelsalam et al., 2021, section 4).

Each takes boolean indicator tensors (N, classes) and returns a Python float in [0, 1], for which it
waits for the device. All of them follow from three counts per sample, which is all that a long
evaluation has to keep: collect :func:`label_counts` batch by batch, then call
:func:`compute_metrics` once.
"""

from collections.abc import Callable

import torch


def label_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return what the metrics need of each sample.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        int64 (N, 3): how many labels are predicted, how many are true, and how many are both.
    """
    parts = (predictions, target, predictions & target)
    return torch.stack([part.sum(dim=1) for part in parts], dim=1)


def confusion_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return for each true label, how many samples with it each label is predicted for.

    Args:
        predictions: bool (N, classes), N below 2^24.
        target: bool (N, classes).

    Returns:
        int64 (classes, classes): row i, column j is the number of samples that have label i and for
        which label j is predicted. A sample with several labels counts in several rows.
    """
    # float32 counts exactly up to 2^24, and no GPU multiplies matrices of integers
    return (target.float().T @ predictions.float()).long()


def jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Jaccard similarity: mean of |predicted and true| / |predicted or true|.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where N is 0. A sample without labels and predictions counts as 1.
    """
    return float(_jaccard_sim(label_counts(predictions, target)))


def modified_jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Precision-weighted Jaccard similarity (pw-JS): each sample's Jaccard times its precision.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where N is 0.
    """
    return float(_modified_jaccard_sim(label_counts(predictions, target)))


def strict_accuracy(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Share of samples whose labels are all predicted and nothing else.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where N is 0.
    """
    return float(_strict_accuracy(label_counts(predictions, target)))


def recall(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Share of all labels of all samples that are predicted.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where there is no label.
    """
    return float(_recall(label_counts(predictions, target)))


def compute_metrics(counts: torch.Tensor) -> dict[str, float]:
    """Return every metric of :data:`METRICS` by name.

    Args:
        counts: int64 (N, 3), from :func:`label_counts`.
    """
    return {name: float(metric(counts)) for name, metric in _OF_COUNTS.items()}


def _modified_jaccard_sim(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    no_label = predicted + true == 0
    precision = torch.where(no_label, 1.0, both / predicted.clamp(min=1))
    return _mean(_jaccard(counts) * precision)


def _jaccard_sim(counts: torch.Tensor) -> torch.Tensor:
    return _mean(_jaccard(counts))


def _strict_accuracy(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    return _mean(((predicted == both) & (true == both)).float())


def _recall(counts: torch.Tensor) -> torch.Tensor:
    _, true, both = counts.unbind(dim=1)
    return both.sum() / true.sum().clamp(min=1)


def _jaccard(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    union = predicted + true - both
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean() if len(values) else torch.zeros(())


METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {
    "modified_jaccard_sim": modified_jaccard_sim,
    "jaccard_sim": jaccard_sim,
    "strict_accuracy": strict_accuracy,
    "recall": recall,
}

_OF_COUNTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "modified_jaccard_sim": _modified_jaccard_sim,
    "jaccard_sim": _jaccard_sim,
    "strict_accuracy": _strict_accuracy,
    "recall": _recall,
}
