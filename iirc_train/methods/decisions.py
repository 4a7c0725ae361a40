"""Decisions: functions from scores to predicted labels."""

import torch


def threshold(scores: torch.Tensor) -> torch.Tensor:
    """Predict every label with a logit above 0, that is, with a probability above 1/2.

    Args:
        scores: Logits, float (N, classes).

    Returns:
        bool (N, classes).
    """
    return scores > 0.0


def highest(scores: torch.Tensor) -> torch.Tensor:
    """Predict the label with the highest score, and only that.

    Args:
        scores: float (N, classes).

    Returns:
        bool (N, classes), one True per row.
    """
    return labels_index_to_one_hot(scores.argmax(dim=1), scores.shape[1]).bool()


def labels_index_to_one_hot(labels: torch.Tensor, length: int) -> torch.Tensor:
    """Encode class indices as indicator vectors.

    Args:
        labels: int64 (N,), in [0, length).
        length: Number of classes.

    Returns:
        float32 (N, length).
    """
    one_hot = torch.zeros(len(labels), length, device=labels.device)
    return one_hot.scatter_(1, labels.unsqueeze(1), 1.0)  # F.one_hot would wait for the device
