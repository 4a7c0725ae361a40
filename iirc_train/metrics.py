"""The metrics: one row each of :data:`METRICS`. A new metric is a row there, and no other edit.

Those of the IIRC paper (Abdelsalam et al., 2021, section 4) follow from three counts per sample, so
that is all that an evaluation keeps of a sample. A metric that needs more declares what.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

MAIN_METRIC = "modified_jaccard_sim"
"""Name of the metric that learning rate schedules, best models and summaries go by."""


class Outputs(NamedTuple):
    """What a method says of a batch, and what is true.

    Attributes:
        predictions: bool (N, classes seen), the predicted labels.
        targets: bool (N, classes seen), the true labels.
        scores: float (N, classes seen), higher for a likelier label: logits, or the negative
            distance to a class mean. None for training steps, which return predictions alone.
    """

    predictions: torch.Tensor
    targets: torch.Tensor
    scores: torch.Tensor | None = None


KeepRows = Callable[[Outputs], torch.Tensor]
"""Returns what is kept of each sample of a batch, (N, ...)."""


def label_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the numbers of labels of each sample.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        int64 (N, 3): how many labels are predicted, how many are true, and how many are both.
    """
    parts = (predictions, target, predictions & target)
    return torch.stack([part.sum(dim=1) for part in parts], dim=1)


def counts_of_labels(outputs: Outputs) -> torch.Tensor:
    """Return :func:`label_counts` of a batch, int64 (N, 3)."""
    return label_counts(outputs.predictions, outputs.targets)


@dataclass(frozen=True)
class Metric:
    """A metric, as a row of :data:`METRICS`.

    Attributes:
        label: Name for people, such as ``"pw-JS"``.
        value: Computes the metric, a scalar in [0, 1], from the rows of all samples, (N, ...). The
            rows of several processes are concatenated first. The metric of no samples is 0.
        keep: Returns the rows of a batch, one per sample, (N, ...): what an evaluation has to keep
            of each. Metrics with the same function share its rows.
        needs_scores: Whether ``keep`` reads scores. Such a metric is computed on validation and
            test samples, but not over training steps.
        shown: Whether TensorBoard, progress and report show the metric; ``metrics.jsonl`` has all.
    """

    label: str
    value: Callable[[torch.Tensor], torch.Tensor]
    keep: KeepRows = counts_of_labels
    needs_scores: bool = False
    shown: bool = True

    def __call__(
        self,
        predictions: torch.Tensor,
        target: torch.Tensor,
        scores: torch.Tensor | None = None,
    ) -> float:
        """Compute the metric of some samples; 0 for none.

        Args:
            predictions: bool (N, classes).
            target: bool (N, classes).
            scores: float (N, classes), for a metric that needs them.
        """
        return self.of_rows(self.keep(Outputs(predictions, target, scores)))

    def of_rows(self, rows: torch.Tensor) -> float:
        """Compute the metric from kept rows, (N, ...); waits for the device."""
        return float(self.value(rows)) if len(rows) else 0.0


class Kept(NamedTuple):
    """What the metrics keep of some samples.

    Attributes:
        rows: The rows of all samples, by the function that makes them.
        metrics: The metrics that these rows serve, by name.
    """

    rows: dict[KeepRows, torch.Tensor]
    metrics: dict[str, Metric]

    def of(self, samples: NDArray[np.int64]) -> "Kept":
        """Return what is kept of some samples, int64 (M,), by their row number."""
        return Kept({keep: rows[samples] for keep, rows in self.rows.items()}, self.metrics)

    def values(self) -> dict[str, float]:
        """Return every metric by name; waits for the device."""
        return {name: m.of_rows(self.rows[m.keep]) for name, m in self.metrics.items()}


class Tally:
    """Collects, batch by batch, what the metrics keep of samples.

    Args:
        n_classes: Number of classes seen.
        device: Where predictions, targets and scores are.
        with_scores: Whether batches come with scores. If not, metrics that need scores are left
            out.
    """

    def __init__(self, n_classes: int, device: torch.device, *, with_scores: bool = True) -> None:
        self._metrics = {
            name: metric
            for name, metric in METRICS.items()
            if with_scores or not metric.needs_scores
        }
        scores = torch.zeros(0, n_classes, device=device)
        nothing = Outputs(scores.bool(), scores.bool(), scores if with_scores else None)
        # in the order of the table, in which all processes gather their rows
        each = dict.fromkeys(metric.keep for metric in self._metrics.values())
        self._batches = {keep: [keep(nothing)] for keep in each}

    def add(self, outputs: Outputs) -> None:
        """Add a batch; never waits for the device."""
        for keep, batches in self._batches.items():
            batches.append(keep(outputs))

    def kept(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> Kept:
        """Return what was collected.

        Args:
            gather: Concatenates the rows of all processes.
        """
        rows = {keep: gather(torch.cat(batches)) for keep, batches in self._batches.items()}
        return Kept(rows, self._metrics)


def modified_jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Precision-weighted Jaccard similarity (pw-JS): each sample's Jaccard times its precision.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where N is 0.
    """
    return METRICS["modified_jaccard_sim"](predictions, target)


def jaccard_sim(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Jaccard similarity: mean of |predicted and true| / |predicted or true|.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where N is 0. A sample without labels and predictions counts as 1.
    """
    return METRICS["jaccard_sim"](predictions, target)


def strict_accuracy(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Share of samples whose labels are all predicted and nothing else.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where N is 0.
    """
    return METRICS["strict_accuracy"](predictions, target)


def recall(predictions: torch.Tensor, target: torch.Tensor) -> float:
    """Share of all labels of all samples that are predicted.

    Args:
        predictions: bool (N, classes).
        target: bool (N, classes).

    Returns:
        0 where there is no label.
    """
    return METRICS["recall"](predictions, target)


def confusion_counts(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return for each true label, how many samples with it each label is predicted for.

    Args:
        predictions: bool (N, classes), N below 2^24.
        target: bool (N, classes).

    Returns:
        int64 (classes, classes): row i, column j is the number of samples that have label i and for
        which label j is predicted. A sample with several labels counts in several rows.
    """
    # float32 counts exactly up to 2^24, and no GPU multiplies matrices of integers
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


def _jaccard(counts: torch.Tensor) -> torch.Tensor:
    predicted, true, both = counts.unbind(dim=1)
    union = predicted + true - both
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


METRICS: dict[str, Metric] = {
    "modified_jaccard_sim": Metric("pw-JS", _modified_jaccard_sim),
    "jaccard_sim": Metric("JS", _jaccard_sim),
    "strict_accuracy": Metric("strict accuracy", _strict_accuracy, shown=False),
    "recall": Metric("recall", _recall, shown=False),
}
"""Name, as in ``metrics.jsonl``, to metric. A script may add rows; see :class:`Metric`."""


def shown_labels() -> dict[str, str]:
    """Return name and label of the metrics that people are shown, in the order of the table."""
    return {name: metric.label for name, metric in METRICS.items() if metric.shown}
