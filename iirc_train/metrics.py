"""The metrics. Each is a row of :data:`METRICS`; adding one needs no other edit.

The metrics of the IIRC paper (Abdelsalam et al., 2021, section 4) follow from three counts per
sample, so an evaluation keeps only these. A metric that needs more declares what to keep. The
accuracies of class-incremental learning are computed in runs that predict one label per sample.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

MAIN_METRIC = "modified_jaccard_sim"
"""Name of the metric for learning rate schedules and choosing the best model.

With one label and one prediction per sample, it is the accuracy.
"""

TOP1 = "top1"
"""Name of the metric for summaries of runs that predict one label per sample."""

ACCURACIES = frozenset({TOP1, "top5", "task_incremental_accuracy"})
"""Names of the metrics that such runs compute besides the others."""


class Outputs(NamedTuple):
    """The outputs of a method for a batch, and the targets.

    Attributes:
        predictions: Predicted labels, bool (N, classes seen).
        targets: True labels, bool (N, classes seen).
        scores: A score for each label, higher for a more likely one, float (N, classes seen):
            logits, or the negative distance to a class mean. None in training steps, which return
            only predictions.
        task_of_class: The task that introduces each class, int64 (classes seen or more,). None in
            training steps.
    """

    predictions: torch.Tensor
    targets: torch.Tensor
    scores: torch.Tensor | None = None
    task_of_class: torch.Tensor | None = None


KeepRows = Callable[[Outputs], torch.Tensor]
"""Returns the rows to keep of a batch, one per sample, (N, ...)."""


def label_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the numbers of labels of each sample.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        int64 (N, 3): the number of predicted labels, of true labels, and of labels that are both.
    """
    return torch.stack((predictions, target, predictions & target), dim=1).sum(dim=2)


def counts_of_labels(outputs: Outputs) -> torch.Tensor:
    """Return :func:`label_counts` of a batch, int64 (N, 3)."""
    return label_counts(outputs.predictions, outputs.targets)


def rank_of_label(outputs: Outputs) -> torch.Tensor:
    """Return how many classes score higher than each sample's best label, int64 (N,).

    Of equal scores the first counts as the highest, as for ``argmax``. A sample without a label has
    the rank 2^31.
    """
    assert outputs.scores is not None
    return _rank(outputs.scores, outputs.targets)


def rank_within_task(outputs: Outputs) -> torch.Tensor:
    """Return :func:`rank_of_label` among the classes of the task that introduced the label."""
    assert outputs.scores is not None and outputs.task_of_class is not None
    task_of_class = outputs.task_of_class[: outputs.targets.shape[1]]
    tasks = task_of_class.expand_as(outputs.targets)
    task = torch.where(outputs.targets, tasks, -1).amax(dim=1, keepdim=True)
    return _rank(outputs.scores, outputs.targets, tasks == task)


def _rank(
    scores: torch.Tensor, targets: torch.Tensor, among: torch.Tensor | None = None
) -> torch.Tensor:
    places = torch.arange(scores.shape[1], device=scores.device)
    own = torch.where(targets, scores, -torch.inf)
    best = own.amax(dim=1, keepdim=True)
    place = torch.where(targets & (own == best), places, scores.shape[1]).amin(dim=1, keepdim=True)
    ahead = (scores > best) | ((scores == best) & (places < place))
    if among is not None:
        ahead &= among
    return torch.where(targets.any(dim=1), ahead.sum(dim=1), 2**31)


@dataclass(frozen=True)
class Metric:
    """A metric, as a row of :data:`METRICS`.

    Attributes:
        label: Display name, such as ``"pw-JS"``.
        value: Computes the metric, a scalar in [0, 1], from the rows of all samples, (N, ...). The
            rows of all processes are concatenated first. Without samples, the metric is 0.
        keep: Returns the rows of a batch, one per sample, (N, ...): all that an evaluation keeps.
            Metrics with the same function share its rows.
        needs_scores: Whether ``keep`` reads scores. Such a metric is computed on validation and
            test samples, but not in training steps.
        decision: The metric is computed only in runs with this decision, ``"threshold"`` or
            ``"argmax"``; None for all runs.
        shown: Whether to show the metric in TensorBoard, progress lines and reports;
            ``metrics.jsonl`` contains all metrics.
    """

    label: str
    value: Callable[[torch.Tensor], torch.Tensor]
    keep: KeepRows = counts_of_labels
    needs_scores: bool = False
    shown: bool = True
    decision: str | None = None

    def __call__(
        self,
        predictions: torch.Tensor,
        target: torch.Tensor,
        scores: torch.Tensor | None = None,
        task_of_class: torch.Tensor | None = None,
    ) -> float:
        """Compute the metric of some samples; 0 if there are none.

        Args:
            predictions: bool (N, classes).
            target: bool (N, classes).
            scores: float (N, classes), for a metric that needs them.
            task_of_class: int64 (classes,), for a metric that needs it; see :class:`Outputs`.
        """
        return self.of_rows(self.keep(Outputs(predictions, target, scores, task_of_class)))

    def of_rows(self, rows: torch.Tensor) -> float:
        """Compute the metric from kept rows, (N, ...). Waits for the device."""
        return float(self.value(rows)) if len(rows) else 0.0


class Kept(NamedTuple):
    """The kept rows of some samples.

    Attributes:
        rows: The rows of all samples, by the function that returned them.
        metrics: The metrics computed from these rows, by name.
    """

    rows: dict[KeepRows, torch.Tensor]
    metrics: dict[str, Metric]

    def of(self, samples: NDArray[np.int64]) -> "Kept":
        """Return the kept rows of some of the samples, given by their numbers, int64 (M,)."""
        return Kept({keep: rows[samples] for keep, rows in self.rows.items()}, self.metrics)

    def values(self) -> dict[str, float]:
        """Return the value of every metric, by name. Waits for the device."""
        return {name: m.of_rows(self.rows[m.keep]) for name, m in self.metrics.items()}


class Tally:
    """Collects the rows that metrics keep, batch by batch.

    Args:
        n_classes: Number of classes seen.
        device: Device of predictions, targets and scores.
        with_scores: Whether batches have scores. If not, metrics that need scores are left out.
        samples_at_once: Number of samples to wait for before their rows are computed together: in
            training, a few kernels for many steps instead of for each.
        decision: The run's decision. Metrics of another one are left out.
    """

    def __init__(
        self,
        n_classes: int,
        device: torch.device,
        *,
        with_scores: bool = True,
        samples_at_once: int = 1,
        decision: str = "threshold",
    ) -> None:
        self._metrics = {
            name: metric
            for name, metric in METRICS.items()
            if (with_scores or not metric.needs_scores) and metric.decision in (None, decision)
        }
        scores = torch.zeros(0, n_classes, device=device)
        nothing = Outputs(scores.bool(), scores.bool())
        if with_scores:
            tasks = torch.zeros(n_classes, dtype=torch.int64, device=device)
            nothing = nothing._replace(scores=scores, task_of_class=tasks)
        # in the order of the table, because all processes must gather in the same order
        each = dict.fromkeys(metric.keep for metric in self._metrics.values())
        self._batches = {keep: [keep(nothing)] for keep in each}
        self._samples_at_once = samples_at_once
        self._waiting: list[Outputs] = []
        self._n_waiting = 0

    def add(self, outputs: Outputs) -> None:
        """Add a batch, without waiting for the device.

        Args:
            outputs: The outputs; targets may also be 0 and 1 in another type.
        """
        self._waiting.append(outputs)
        self._n_waiting += len(outputs.predictions)
        if self._n_waiting >= self._samples_at_once:
            self._keep_waiting()

    def _keep_waiting(self) -> None:
        if not self._waiting:
            return
        scores = [waiting.scores for waiting in self._waiting if waiting.scores is not None]
        outputs = Outputs(
            _joined([waiting.predictions for waiting in self._waiting]),
            _joined([waiting.targets for waiting in self._waiting]).bool(),
            _joined(scores) if scores else None,
            self._waiting[0].task_of_class,
        )
        for keep, batches in self._batches.items():
            batches.append(keep(outputs))
        self._waiting, self._n_waiting = [], 0

    def rows(self) -> dict[str, torch.Tensor]:
        """Return the rows collected so far, by the name of the first metric that reads them."""
        self._keep_waiting()
        self._batches = {keep: [torch.cat(batches)] for keep, batches in self._batches.items()}
        return {self._name(keep): rows for keep, (rows,) in self._batches.items()}

    def add_rows(self, rows: Mapping[str, torch.Tensor]) -> None:
        """Add rows that :meth:`rows` of another tally returned.

        Raises:
            ValueError: The other tally was of other metrics.
        """
        names = [self._name(keep) for keep in self._batches]
        if sorted(names) != sorted(rows):
            raise ValueError(f"expected the rows of {sorted(names)}, got {sorted(rows)}")
        self._keep_waiting()
        for name, batches in zip(names, self._batches.values(), strict=True):
            batches.append(rows[name].to(batches[0].device))

    def _name(self, keep: KeepRows) -> str:
        return next(name for name, metric in self._metrics.items() if metric.keep == keep)

    def kept(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> Kept:
        """Return the collected rows.

        Args:
            gather: Concatenates the rows of all processes.
        """
        self._keep_waiting()
        rows = {keep: gather(torch.cat(batches)) for keep, batches in self._batches.items()}
        return Kept(rows, self._metrics)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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


def confusion_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Count how often each label is predicted for samples with each true label.

    Args:
        predictions: bool (N, classes), N below 2^24.
        target: bool (N, classes).

    Returns:
        int64 (classes, classes): row i, column j is the number of samples with true label i and
        predicted label j. A sample with several labels counts in several rows.
    """
    # float32 is exact up to 2^24, and GPUs do not multiply integer matrices
    return (target.float().T @ predictions.float()).long()


def _modified_jaccard_sim(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    no_label = predicted + true == 0
    precision = torch.where(no_label, 1.0, both / predicted.clamp(min=1))
    return (_jaccard(counts) * precision).mean()


def _jaccard_sim(counts: torch.Tensor) -> torch.Tensor:
    return _jaccard(counts).mean()


def _strict_accuracy(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    return ((predicted == both) & (true == both)).float().mean()


def _recall(counts: torch.Tensor) -> torch.Tensor:
    _, true, both = counts.unbind(dim=1)
    return both.sum() / true.sum().clamp(min=1)


def _share_below(most: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda ranks: (ranks < most).float().mean()


def _jaccard(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    union = predicted + true - both
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


METRICS: dict[str, Metric] = {
    "modified_jaccard_sim": Metric("pw-JS", _modified_jaccard_sim),
    "jaccard_sim": Metric("JS", _jaccard_sim),
    "strict_accuracy": Metric("strict accuracy", _strict_accuracy, shown=False),
    "recall": Metric("recall", _recall, shown=False),
    TOP1: Metric("top-1", _share_below(1), rank_of_label, needs_scores=True, decision="argmax"),
    "top5": Metric("top-5", _share_below(5), rank_of_label, needs_scores=True, decision="argmax"),
    "task_incremental_accuracy": Metric(
        "task-incremental accuracy",
        _share_below(1),
        rank_within_task,
        needs_scores=True,
        decision="argmax",
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
