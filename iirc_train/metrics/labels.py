"""The metrics of the IIRC paper, which follow from three counts per sample."""

import torch

from iirc_train.metrics.outputs import Outputs


def label_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the numbers of labels of each sample.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        int64 (N, 3): the number of predicted labels, of true labels, and of labels that are both.
    """
    return torch.stack((predictions, target, predictions & target), dim=1).sum(dim=2)


def counts_of_labels(outputs: Outputs) -> torch.Tensor:
    """Return :func:`label_counts` of a batch, int64 (N, 3)."""
    return label_counts(outputs.predictions, outputs.targets)


def confusion_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Count how often each label is predicted for samples with each true label.

    Args:
        predictions: bool (N, classes), N below 2^24.
        target: bool (N, classes).

    Returns:
        int64 (classes, classes): row i, column j is the number of samples with true label i and
        predicted label j. A sample with several labels counts in several rows.
    """
    # float32 is exact up to 2^24, and GPUs do not multiply integer matrices
    return (target.float().T @ predictions.float()).long()


def add_confusion_counts(
    counts: torch.Tensor, predictions: torch.Tensor, target: torch.Tensor, most_labels: int
) -> None:
    """Add :func:`confusion_counts` of a batch to counts.

    The cost is that of ``most_labels`` rows of counts per sample, not that of all of them.

    Args:
        counts: int64 (classes, classes); changed.
        predictions: bool (N, classes).
        target: bool (N, classes).
        most_labels: No sample has more true labels.
    """
    most = min(most_labels, target.shape[1])
    given, labels = target.to(torch.int32).topk(most, dim=1)  # nonzero would wait for the device
    for is_label, label in zip(given.bool().unbind(dim=1), labels.unbind(dim=1), strict=True):
        counts.index_add_(0, label, (predictions & is_label[:, None]).long())


def modified_jaccard(counts: torch.Tensor) -> torch.Tensor:
    """Return the mean of each sample's Jaccard similarity times its precision."""
    predicted, true, both = counts.unbind(dim=1)
    no_label = predicted + true == 0
    precision = torch.where(no_label, 1.0, both / predicted.clamp(min=1))
    return (_jaccard(counts) * precision).mean()


def mean_jaccard(counts: torch.Tensor) -> torch.Tensor:
    """Return the mean of the samples' Jaccard similarities."""
    return _jaccard(counts).mean()


def exact_matches(counts: torch.Tensor) -> torch.Tensor:
    """Return the share of samples whose predicted labels are the true ones."""
    predicted, true, both = counts.unbind(dim=1)
    return ((predicted == both) & (true == both)).float().mean()


def recalled(counts: torch.Tensor) -> torch.Tensor:
    """Return the share of all true labels that are predicted; 0 if there are none."""
    _, true, both = counts.unbind(dim=1)
    return both.sum() / true.sum().clamp(min=1)


def _jaccard(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    union = predicted + true - both
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)
