"""Collects what metrics need of the samples of an evaluation."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_train.metrics.levels import metrics_of_levels
from iirc_train.metrics.metric import Metric
from iirc_train.metrics.outputs import KeepRows, Outputs
from iirc_train.metrics.seen_taxonomy import SeenTaxonomy
from iirc_train.metrics.table import METRICS


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
        """Return the value of every metric, by name, without undefined ones.

        Waits for the device.
        """
        found = {name: m.of_rows(self.rows[m.keep]) for name, m in self.metrics.items()}
        return {
            name: value
            for name, value in found.items()
            if not (self.metrics[name].may_be_undefined and math.isnan(value))
        }


class Tally:
    """Collects the rows that metrics keep, batch by batch.

    Args:
        n_classes: Number of classes seen.
        device: Device of predictions, targets and scores.
        with_scores: Whether batches have scores. If not, metrics that need scores are left out.
        samples_at_once: Number of samples to wait for before their rows are computed together: in
            training, a few kernels for many steps instead of for each.
        decision: The run's decision. Metrics of another one are left out.
        taxonomy: The taxonomy of the classes seen or more; None leaves out the metrics of the
            hierarchy.
    """

    def __init__(
        self,
        n_classes: int,
        device: torch.device,
        *,
        with_scores: bool = True,
        samples_at_once: int = 1,
        decision: str = "threshold",
        taxonomy: SeenTaxonomy | None = None,
    ) -> None:
        of_levels = {} if taxonomy is None else metrics_of_levels(taxonomy.n_levels)
        self._metrics = {
            name: metric
            for name, metric in (METRICS | of_levels).items()
            if (with_scores or not metric.needs_scores)
            and (taxonomy is not None or not metric.needs_hierarchy)
            and metric.decision in (None, decision)
        }
        self._taxonomy = None if taxonomy is None else taxonomy.seen(n_classes).to(device)
        scores = torch.zeros(0, n_classes, device=device)
        nothing = Outputs(scores.bool(), scores.bool(), taxonomy=self._taxonomy)
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
            self._taxonomy,
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
