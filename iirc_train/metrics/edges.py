"""How much of the taxonomy can be read off the predictions: discovered edges."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iirc_train.metrics.seen_taxonomy import SeenTaxonomy

MAJORITY = 0.5
"""A label counts as an ancestor of a class if it is predicted for more than this share of it."""

Relation = NDArray[np.bool_]


def discovered_ancestors(counts: NDArray[np.int64], n_samples: NDArray[np.int64]) -> Relation:
    """Return which classes the predictions show to be ancestors of others.

    Class j is discovered as an ancestor of class i if it is predicted for more than half of the
    samples of class i, and for a larger share of them than class i is for the samples of class j.
    The second condition gives the relation a direction. The idea is that of Wang et al., "HCV:
    Hierarchy-Consistency Verification for Incremental Implicitly-Refined Classification" (BMVC
    2021), which finds the superclass of new classes from the predictions for their
    samples.

    Args:
        counts: int64 (n, n): samples with true label i (row) and predicted label j (column).
        n_samples: int64 (n,): samples with true label i.

    Returns:
        bool (n, n): class i in rows, class j in columns.
    """
    i, j = np.nonzero(counts > MAJORITY * n_samples[:, None])
    directed = counts[i, j] * n_samples[j] > counts[j, i] * n_samples[i]
    found = np.zeros(counts.shape, dtype=bool)
    found[i[directed], j[directed]] = True
    return found


def without_detours(ancestors: Relation) -> Relation:
    """Return the edges of a relation: without the ancestors of a class's other ancestors.

    Args:
        ancestors: bool (n, n); need not be transitive.
    """
    packed = np.packbits(ancestors, axis=1)  # a model may predict thousands of labels for a class
    edges = packed.copy()
    for name in np.flatnonzero(ancestors.sum(axis=1) > 1):
        above = np.flatnonzero(ancestors[name])
        edges[name] &= ~np.bitwise_or.reduce(packed[above], axis=0)
    return np.unpackbits(edges, axis=1, count=len(ancestors)).view(np.bool_)


class Discovery(NamedTuple):
    """Discovered and true pairs of classes.

    Attributes:
        found: Number of pairs discovered.
        true: Number of pairs in the taxonomy of the classes seen.
        both: Number of pairs that are both.
    """

    found: int
    true: int
    both: int

    @classmethod
    def of(cls, found: Relation, true: Relation) -> "Discovery":
        """Count the pairs of two relations."""
        return cls(int(found.sum()), int(true.sum()), int((found & true).sum()))

    @property
    def precision(self) -> float:
        """Share of the pairs discovered that are true; NaN if none is discovered."""
        return self.both / self.found if self.found else np.nan

    @property
    def recall(self) -> float:
        """Share of the true pairs that are discovered; NaN if there are none."""
        return self.both / self.true if self.true else np.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if the taxonomy has no pair."""
        return 2 * self.both / (self.found + self.true) if self.true else np.nan


class EdgeMetric(NamedTuple):
    """A row of :data:`EDGE_METRICS`.

    Attributes:
        label: Display name.
        value: Computes the metric, in [0, 1]; NaN if it is undefined.
        of_ancestors: Whether pairs are a class and any of its ancestors; otherwise, a class and
            one of its direct superclasses, an edge of the taxonomy.
        tracked: Whether trackers show the metric.
    """

    label: str
    value: Callable[[Discovery], float]
    of_ancestors: bool = False
    tracked: bool = False


EDGE_METRICS: dict[str, EdgeMetric] = {
    "edge_precision": EdgeMetric("edge precision", lambda pairs: pairs.precision),
    "edge_recall": EdgeMetric("edge recall", lambda pairs: pairs.recall),
    "edge_f1": EdgeMetric("edge F1", lambda pairs: pairs.f1, tracked=True),
    "ancestor_precision": EdgeMetric(
        "ancestor precision", lambda pairs: pairs.precision, of_ancestors=True
    ),
    "ancestor_recall": EdgeMetric("ancestor recall", lambda pairs: pairs.recall, of_ancestors=True),
    "ancestor_f1": EdgeMetric("ancestor F1", lambda pairs: pairs.f1, of_ancestors=True),
}
"""The metrics of discovered edges by their name in ``metrics.jsonl``.

Taxonomies that are extracted from text are evaluated by the same numbers: Bordea, Lefever and
Buitelaar, "SemEval-2016 Task 13: Taxonomy Extraction Evaluation (TExEval-2)"; Mao et al.,
"End-to-End Reinforcement Learning for Automatic Taxonomy Induction" (ACL 2018).
"""


def edge_scores(
    counts: NDArray[np.int64], n_samples: NDArray[np.int64], taxonomy: SeenTaxonomy
) -> dict[str, float]:
    """Return the metrics of discovered edges, by name, without the undefined ones.

    Args:
        counts: See :func:`discovered_ancestors`.
        n_samples: Likewise.
        taxonomy: The taxonomy of the n classes, which are those seen.
    """
    found = discovered_ancestors(counts, n_samples)
    true = np.zeros_like(found)
    true[taxonomy.below.cpu().numpy(), taxonomy.above.cpu().numpy()] = True
    pairs = {
        True: Discovery.of(found, true),
        False: Discovery.of(without_detours(found), without_detours(true)),
    }
    scores = {name: row.value(pairs[row.of_ancestors]) for name, row in EDGE_METRICS.items()}
    return {name: score for name, score in scores.items() if not np.isnan(score)}
