"""A row of the table of metrics."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from iirc_train.metrics.labels import counts_of_labels
from iirc_train.metrics.outputs import KeepRows, Outputs
from iirc_train.metrics.seen_taxonomy import SeenTaxonomy


@dataclass(frozen=True)
class Metric:
    """A metric, as a row of :data:`METRICS`.

    Attributes:
        label: Display name, such as ``"pw-JS"``.
        value: Computes the metric, a scalar, from the rows of all samples, (N, ...). The rows of
            all processes are concatenated first. A metric that is shown is in [0, 1]. Without
            samples, the metric is 0.
        keep: Returns the rows of a batch, one per sample, (N, ...): all that an evaluation keeps.
            Metrics with the same function share its rows.
        needs_scores: Whether ``keep`` reads scores. Such a metric is computed on validation and
            test samples, but not in training steps.
        decision: The metric is computed only in runs with this decision, ``"threshold"`` or
            ``"argmax"``; None for all runs.
        needs_hierarchy: Whether ``keep`` reads the taxonomy. Such a metric is computed on test and
            post-task validation samples, where classes have superclasses.
        shown: Whether to show the metric in TensorBoard, progress lines and reports;
            ``metrics.jsonl`` contains all metrics.
        tracked: Whether to show the metric in TensorBoard and other trackers only.
        may_be_undefined: Whether ``value`` returns NaN where the metric is undefined, such as the
            mean over mistakes if there are none. Such values, and the value without samples, are
            left out of ``metrics.jsonl``.
    """

    label: str
    value: Callable[[torch.Tensor], torch.Tensor]
    keep: KeepRows = counts_of_labels
    needs_scores: bool = False
    shown: bool = True
    decision: str | None = None
    needs_hierarchy: bool = False
    tracked: bool = False
    may_be_undefined: bool = False

    def __call__(
        self,
        predictions: torch.Tensor,
        target: torch.Tensor,
        scores: torch.Tensor | None = None,
        task_of_class: torch.Tensor | None = None,
        ancestors: torch.Tensor | None = None,
    ) -> float:
        """Compute the metric of some samples; see :meth:`of_rows`.

        Args:
            predictions: bool (N, classes).
            target: bool (N, classes).
            scores: float (N, classes), for a metric that needs them.
            task_of_class: int64 (classes,), for a metric that needs it; see :class:`Outputs`.
            ancestors: Whether the class of a column is that of the row or one of its ancestors,
                bool (classes or more, the same), for a metric that needs the taxonomy.
        """
        taxonomy = None
        if ancestors is not None:
            taxonomy = SeenTaxonomy.of(ancestors.cpu()).seen(predictions.shape[1])
            taxonomy = taxonomy.to(predictions.device)
        outputs = Outputs(predictions, target, scores, task_of_class, taxonomy)
        return self.of_rows(self.keep(outputs))

    def of_rows(self, rows: torch.Tensor) -> float:
        """Compute the metric from kept rows, (N, ...). Waits for the device.

        Returns:
            0 if there are no rows; NaN if the metric is undefined.
        """
        if not len(rows):
            return math.nan if self.may_be_undefined else 0.0
        return float(self.value(rows))
