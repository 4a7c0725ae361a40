"""How far from the true leaf class the scores rank others: severity of mistakes."""

from collections.abc import Callable

import torch

from iirc_train.metrics.hierarchy import taxonomy_of
from iirc_train.metrics.outputs import Outputs

MOST_RANKED = 20
"""Number of highest-ranked leaf classes whose distances are kept."""


def distances_of_ranking(outputs: Outputs) -> torch.Tensor:
    """Return the distances between each sample's leaf class and those with the highest scores.

    The ranking is among the leaf classes seen so far. Of equal scores the first counts as the
    highest, as for ``argmax``.

    Returns:
        int64 (N, 20): the height of the lowest common ancestor of the sample's leaf class and of
        the class at each rank, as :meth:`SeenTaxonomy.distance
        <iirc_train.metrics.seen_taxonomy.SeenTaxonomy.distance>` defines it; -1 beyond the number
        of leaf classes, and for a sample whose leaf class is not seen yet. If no task introduces
        the leaf class of a sample, the classes next above it stand in: each of them has the
        distance 0, and the distances of others are those to the first of them.
    """
    taxonomy = taxonomy_of(outputs)
    assert outputs.scores is not None
    leaves = taxonomy.leaves
    rows = torch.full((len(outputs.scores), MOST_RANKED), -1, device=leaves.device)
    if not len(leaves):
        return rows
    ranks = outputs.scores[:, leaves].sort(dim=1, descending=True, stable=True).indices
    ranked = leaves[ranks[:, :MOST_RANKED]]
    is_own = outputs.targets[:, leaves]
    own = leaves[is_own.int().argmax(dim=1, keepdim=True)]
    found = taxonomy.distance(ranked, own)
    found = torch.where(is_own.gather(1, ranks[:, :MOST_RANKED]), 0, found)
    rows[:, : ranked.shape[1]] = torch.where(is_own.any(dim=1, keepdim=True), found, -1)
    return rows


def mistake_severity(distances: torch.Tensor) -> torch.Tensor:
    """Return the mean distance of the highest-ranked class over the samples where it is wrong.

    Bertinetto et al., "Making Better Mistakes: Leveraging Class Hierarchies with Deep Networks"
    (CVPR 2020): the "hierarchical distance of a mistake".

    Args:
        distances: int64 (N, 20), see :func:`distances_of_ranking`.

    Returns:
        At least 1; NaN if there is no mistake.
    """
    top = distances[:, 0]
    return top[top > 0].float().mean()


def mean_distance(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that computes the mean distance of the k highest-ranked classes.

    The "average hierarchical distance of top-k" of Bertinetto et al. (CVPR 2020), over all samples
    whose leaf class has been seen; NaN if there are none, or fewer than k leaf classes.
    """

    def value(distances: torch.Tensor) -> torch.Tensor:
        first = distances[:, :k]
        return first[first[:, -1] >= 0].float().mean()

    return value
