"""How predicted labels agree with the hierarchy: metrics in a taxonomy of any depth."""

import torch

from iirc_train.metrics.labels import label_counts
from iirc_train.metrics.outputs import Outputs
from iirc_train.metrics.seen_taxonomy import SeenTaxonomy


def counts_with_ancestors(outputs: Outputs) -> torch.Tensor:
    """Return :func:`~iirc_train.metrics.labels.label_counts` after adding all ancestors, (N, 3).

    Silla and Freitas, "A survey of hierarchical classification across different application
    domains" (Data Mining and Knowledge Discovery 2011), section 5, after Kiritchenko et al.: both
    the predicted and the true labels are extended by their ancestors.
    """
    taxonomy = taxonomy_of(outputs)
    both = outputs.predictions, outputs.targets
    return label_counts(*(labels | (taxonomy.count_below(labels) > 0) for labels in both))


def superclass_follows(outputs: Outputs) -> torch.Tensor:
    """Count each sample's predicted labels that have ancestors, and those with all of them.

    Returns:
        int64 (N, 2): the number of predicted labels with an ancestor, and how many of them are
        predicted together with all their ancestors.
    """
    taxonomy = taxonomy_of(outputs)
    asked = outputs.predictions & (taxonomy.n_above > 0)
    has_all = taxonomy.count_above(outputs.predictions) == taxonomy.n_above
    return torch.stack((asked, asked & has_all), dim=1).sum(dim=2)


def subclass_follows(outputs: Outputs) -> torch.Tensor:
    """Count each sample's predicted labels that have descendants, and those with one of them.

    Returns:
        int64 (N, 2): the number of predicted labels with a descendant, and how many of them are
        predicted together with a descendant.
    """
    taxonomy = taxonomy_of(outputs)
    asked = outputs.predictions & (taxonomy.n_below > 0)
    has_one = taxonomy.count_below(outputs.predictions) > 0
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


def taxonomy_of(outputs: Outputs) -> SeenTaxonomy:
    """Return the taxonomy of outputs that have one."""
    assert outputs.taxonomy is not None
    return outputs.taxonomy
