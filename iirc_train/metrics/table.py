"""The table of metrics."""

from collections.abc import Collection

from iirc_train.metrics import hierarchy
from iirc_train.metrics.accuracies import rank_of_label, rank_within_task, share_below
from iirc_train.metrics.distances import (
    MOST_RANKED,
    distances_of_ranking,
    mean_distance,
    mistake_severity,
)
from iirc_train.metrics.edges import EDGE_METRICS, EdgeMetric
from iirc_train.metrics.labels import exact_matches, mean_jaccard, modified_jaccard, recalled
from iirc_train.metrics.levels import metric_at_level
from iirc_train.metrics.metric import Metric

MAIN_METRIC = "modified_jaccard_sim"
"""Name of the metric for learning rate schedules and choosing the best model.

With one label and one prediction per sample, it is the accuracy.
"""

TOP1 = "top1"
"""Name of the metric for summaries of runs that predict one label per sample."""

ACCURACIES = frozenset({TOP1, "top5", "task_incremental_accuracy"})
"""Names of the metrics that such runs compute besides the others."""


METRICS: dict[str, Metric] = {
    "modified_jaccard_sim": Metric("pw-JS", modified_jaccard),
    "jaccard_sim": Metric("JS", mean_jaccard),
    "strict_accuracy": Metric("strict accuracy", exact_matches, shown=False),
    "recall": Metric("recall", recalled, shown=False),
    TOP1: Metric("top-1", share_below(1), rank_of_label, needs_scores=True, decision="argmax"),
    "top5": Metric("top-5", share_below(5), rank_of_label, needs_scores=True, decision="argmax"),
    "task_incremental_accuracy": Metric(
        "task-incremental accuracy",
        share_below(1),
        rank_within_task,
        needs_scores=True,
        decision="argmax",
    ),
    "hierarchical_f1": Metric(
        "hierarchical F1", hierarchy.f1, hierarchy.counts_with_ancestors, needs_hierarchy=True
    ),
    "hierarchical_precision": Metric(
        "hierarchical precision",
        hierarchy.precision,
        hierarchy.counts_with_ancestors,
        needs_hierarchy=True,
        shown=False,
    ),
    "hierarchical_recall": Metric(
        "hierarchical recall",
        recalled,
        hierarchy.counts_with_ancestors,
        needs_hierarchy=True,
        shown=False,
    ),
    "superclass_consistency": Metric(
        "superclass consistency",
        hierarchy.share_that_follows,
        hierarchy.superclass_follows,
        needs_hierarchy=True,
        shown=False,
    ),
    "subclass_consistency": Metric(
        "subclass consistency",
        hierarchy.share_that_follows,
        hierarchy.subclass_follows,
        needs_hierarchy=True,
        shown=False,
    ),
    "mistake_severity": Metric(
        "mistake severity",
        mistake_severity,
        distances_of_ranking,
        needs_scores=True,
        needs_hierarchy=True,
        shown=False,
        tracked=True,
        may_be_undefined=True,
    ),
    **{
        f"hierarchical_distance_top{k}": Metric(
            f"hierarchical distance of top-{k}",
            mean_distance(k),
            distances_of_ranking,
            needs_scores=True,
            needs_hierarchy=True,
            shown=False,
            may_be_undefined=True,
        )
        for k in (1, 5, MOST_RANKED)
    },
}
"""The metrics by their name in ``metrics.jsonl``. Scripts can add rows.

Those of each level are in :data:`~iirc_train.metrics.levels.LEVEL_METRICS`, those of discovered
edges in :data:`~iirc_train.metrics.edges.EDGE_METRICS`.
"""


def metric_label(name: str) -> str:
    """Return the display name of a metric; its name if no table knows it."""
    metric = _named(name)
    return metric.label if metric else name


def is_of_hierarchy(name: str) -> bool:
    """Return whether a metric is computed only where classes have superclasses."""
    metric = METRICS.get(name)
    return metric.needs_hierarchy if metric else _named(name) is not None


def tracked_labels(computed: Collection[str]) -> dict[str, str]:
    """Return names and labels of the metrics that trackers show, among those computed."""
    shown = shown_labels(computed)
    known = {name: metric for name in computed if (metric := _named(name))}
    return shown | {name: metric.label for name, metric in known.items() if metric.tracked}


def _named(name: str) -> Metric | EdgeMetric | None:
    return METRICS.get(name) or EDGE_METRICS.get(name) or metric_at_level(name)


def shown_labels(computed: Collection[str] | None = None) -> dict[str, str]:
    """Return names and labels of the metrics to show, in the order of the table.

    Args:
        computed: Names to choose from, such as the keys of a record; by default all metrics.
    """
    return {
        name: metric.label
        for name, metric in METRICS.items()
        if metric.shown and (computed is None or name in computed)
    }
