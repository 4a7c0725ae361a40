"""The metrics under their published names, as functions."""

import torch

from iirc_train.metrics.table import METRICS


def modified_jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Precision-weighted Jaccard similarity (pw-JS): mean of each sample's JS times its precision.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        In [0, 1]; 0 if N is 0.
    """
    return METRICS["modified_jaccard_sim"](predictions, target)


def jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Jaccard similarity (JS): mean of |predicted and true| / |predicted or true|.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        In [0, 1]; 0 if N is 0. A sample with neither labels nor predictions counts as 1.
    """
    return METRICS["jaccard_sim"](predictions, target)


def strict_accuracy(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Fraction of samples whose predicted labels equal their true labels.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        In [0, 1]; 0 if N is 0.
    """
    return METRICS["strict_accuracy"](predictions, target)


def recall(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Fraction of the true labels of all samples that are predicted.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        In [0, 1]; 0 if there are no labels.
    """
    return METRICS["recall"](predictions, target)
