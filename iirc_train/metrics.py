"""The metrics of the IIRC paper (Abdelsalam et al., 2021, section 4).

Each takes boolean indicator tensors (N, classes) and returns the mean over samples, in [0, 1].
"""

from collections.abc import Callable

import torch


def jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Jaccard similarity: mean of |predicted and true| / |predicted or true|.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        Scalar float32; 0 where N is 0. A sample without labels and predictions counts as 1.
    """
    return _mean(_jaccard(predictions, target))


def modified_jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Precision-weighted Jaccard similarity (pw-JS): each sample's Jaccard times its precision.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        Scalar float32; 0 where N is 0.
    """
    correct = (predictions & target).sum(dim=1)
    predicted = predictions.sum(dim=1)
    no_label = ~(predictions | target).any(dim=1)
    precision = torch.where(no_label, 1.0, correct / predicted.clamp(min=1))
    return _mean(_jaccard(predictions, target) * precision)


def strict_accuracy(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of samples whose labels are all predicted and nothing else.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        Scalar float32; 0 where N is 0.
    """
    return _mean((predictions == target).all(dim=1).float())


def recall(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of all labels of all samples that are predicted.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        Scalar float32; 0 where there is no label.
    """
    return (predictions & target).sum() / target.sum().clamp(min=1)


METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "modified_jaccard_sim": modified_jaccard_sim,
    "jaccard_sim": jaccard_sim,
    "strict_accuracy": strict_accuracy,
    "recall": recall,
}


def compute_metrics(predictions: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Return every metric of :data:`METRICS` by name."""
    return {name: float(metric(predictions, target)) for name, metric in METRICS.items()}


def _jaccard(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    union = (predictions | target).sum(dim=1)
    both = (predictions & target).sum(dim=1)
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean() if len(values) else torch.zeros(())
