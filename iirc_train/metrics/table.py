"""The table of metrics."""

from collections.abc import Collection

from iirc_train.metrics import hierarchy
from iirc_train.metrics.accuracies import rank_of_label, rank_within_task, share_below
from iirc_train.metrics.labels import exact_matches, mean_jaccard, modified_jaccard, recalled
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
}
"""The metrics by their name in ``metrics.jsonl``. Scripts can add rows."""


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
