"""The metrics. Each is a row of :data:`METRICS`; adding one needs no other edit.

The metrics of the IIRC paper (Abdelsalam et al., 2021, section 4) follow from three counts per
sample, so an evaluation keeps only these. A metric that needs more declares what to keep.
Accuracies are computed in runs that predict one label per sample, metrics of the hierarchy where
classes have superclasses: those of :data:`METRICS`, those of each level, and those of discovered
edges, which follow from the confusion counts.
"""

from iirc_train.metrics.accuracies import rank_of_label, rank_within_task
from iirc_train.metrics.edges import edge_scores
from iirc_train.metrics.labels import (
    add_confusion_counts,
    confusion_counts,
    counts_of_labels,
    label_counts,
)
from iirc_train.metrics.levels import level_name, levels_of
from iirc_train.metrics.metric import Metric
from iirc_train.metrics.outputs import KeepRows, Outputs
from iirc_train.metrics.published import (
    jaccard_sim,
    modified_jaccard_sim,
    recall,
    strict_accuracy,
)
from iirc_train.metrics.seen_taxonomy import SeenTaxonomy
from iirc_train.metrics.table import (
    ACCURACIES,
    MAIN_METRIC,
    METRICS,
    TOP1,
    is_of_hierarchy,
    metric_label,
    shown_labels,
    tracked_labels,
)
from iirc_train.metrics.tally import Kept, Tally

__all__ = [
    "ACCURACIES",
    "MAIN_METRIC",
    "METRICS",
    "TOP1",
    "KeepRows",
    "Kept",
    "Metric",
    "Outputs",
    "SeenTaxonomy",
    "Tally",
    "add_confusion_counts",
    "confusion_counts",
    "counts_of_labels",
    "edge_scores",
    "is_of_hierarchy",
    "jaccard_sim",
    "label_counts",
    "level_name",
    "levels_of",
    "metric_label",
    "modified_jaccard_sim",
    "rank_of_label",
    "rank_within_task",
    "recall",
    "shown_labels",
    "strict_accuracy",
    "tracked_labels",
]
