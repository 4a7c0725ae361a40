"""What a model knows of the hierarchy: metrics of predictions in a taxonomy of any depth."""

import torch

from iirc_train.metrics.labels import label_counts
from iirc_train.metrics.outputs import Outputs


def counts_with_ancestors(outputs: Outputs) -> torch.Tensor:
    """Return :func:`~iirc_train.metrics.labels.label_counts` after adding all ancestors, (N, 3).

    Silla and Freitas, "A survey of hierarchical classification across different application
    domains" (Data Mining and Knowledge Discovery 2011), section 5, after Kiritchenko et al.: both
    the predicted and the true labels are extended by their ancestors.
    """
    both = outputs.predictions, outputs.targets
    return label_counts(*(_reached(labels, _ancestors(outputs)) for labels in both))


def superclass_follows(outputs: Outputs) -> torch.Tensor:
    """Count each sample's predicted labels that have ancestors, and those with all of them.

    Returns:
        int64 (N, 2): the number of predicted labels with an ancestor, and how many of them are
        predicted together with all their ancestors.
    """
    above = _above(outputs)
    asked = outputs.predictions & above.any(dim=1)
    lacks_one = _reached(~outputs.predictions, above.T)
    return torch.stack((asked, asked & ~lacks_one), dim=1).sum(dim=2)


def subclass_follows(outputs: Outputs) -> torch.Tensor:
    """Count each sample's predicted labels that have descendants, and those with one of them.

    Returns:
        int64 (N, 2): the number of predicted labels with a descendant, and how many of them are
        predicted together with a descendant.
    """
    above = _above(outputs)
    asked = outputs.predictions & above.any(dim=0)
    has_one = _reached(outputs.predictions, above)
    return torch.stack((asked, asked & has_one), dim=1).sum(dim=2)


def precision(counts: torch.Tensor) -> torch.Tensor:
    """Return the share of predicted labels that are true, over all samples; 0 if there are none.

    Args:
        counts: int64 (N, 3), see :func:`~iirc_train.metrics.labels.label_counts`.
    """
    predicted, _, both = counts.sum(dim=0).unbind()
    return both / predicted.clamp(min=1)


def f1(counts: torch.Tensor) -> torch.Tensor:
    """Return the harmonic mean of precision and recall over all samples.

    Args:
        counts: int64 (N, 3), see :func:`~iirc_train.metrics.labels.label_counts`.
    """
    predicted, true, both = counts.sum(dim=0).unbind()
    return 2 * both / (predicted + true).clamp(min=1)


def share_that_follows(counts: torch.Tensor) -> torch.Tensor:
    """Return the second column's sum divided by the first's; 1 if no label is asked for.

    Args:
        counts: int64 (N, 2).
    """
    asked, followed = counts.sum(dim=0).unbind()
    return torch.where(asked > 0, followed / asked.clamp(min=1), 1.0)


def _ancestors(outputs: Outputs) -> torch.Tensor:
    """Return the part of the relation among the classes seen, bool (classes seen, classes seen)."""
    assert outputs.ancestors is not None
    n = outputs.predictions.shape[1]
    return outputs.ancestors[:n, :n]


def _above(outputs: Outputs) -> torch.Tensor:
    """Return the relation without that of each class to itself."""
    return _ancestors(outputs).clone().fill_diagonal_(fill_value=False)


def _reached(labels: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
    """Return which classes any of a sample's labels is related to, bool (N, classes)."""
    # float32 is exact for whole numbers up to 2^24, and GPUs do not multiply integer matrices
    return labels.float() @ relation.float() > 0
