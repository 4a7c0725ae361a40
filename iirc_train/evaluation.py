"""What a method predicts on a view, and how good that is."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from iirc_data.definitions import SplitName
from iirc_data.loader import Batch
from iirc_data.task_view import TaskSequence, TaskView
from iirc_train.distributed import gathered
from iirc_train.methods.base_method import BaseMethod
from iirc_train.metrics import compute_metrics, label_counts

MakeLoader = Callable[[TaskView], Iterable[Batch]]
"""Makes a loader that shows this process's part of a view in order, as for evaluation."""


def evaluate(method: BaseMethod, batches: Iterable[Batch]) -> dict[str, float]:
    """Return a method's metrics on the samples of all processes' batches."""
    return compute_metrics(count_labels(method, batches))


def evaluate_tasks(
    method: BaseMethod,
    sequence: TaskSequence,
    split: SplitName,
    after_task: int,
    make_loader: MakeLoader,
) -> list[dict[str, Any]]:
    """Evaluate a method on every task seen so far, and on all their classes together.

    Each image is predicted once, though several tasks may show it.

    Args:
        method: The method.
        sequence: The tasks of one split, with complete information.
        split: Name of the split, for the records.
        after_task: Latest task seen.
        make_loader: Reads images.

    Returns:
        A record per task, then one with task ``"all"``, in which each sample counts once.
    """
    everything = sequence.view(range(after_task + 1))
    counts = count_labels(method, make_loader(everything))
    records: list[dict[str, Any]] = []
    for task in range(after_task + 1):
        shown = sequence.view(task, seen_up_to=after_task).sample_ids
        rows = np.searchsorted(everything.sample_ids, shown)
        metrics = compute_metrics(counts[rows])
        records.append({"task": task, "n_samples": len(rows), **metrics})
    metrics = compute_metrics(counts)
    records.append({"task": "all", "n_samples": len(everything), **metrics})
    where: dict[str, Any] = {"kind": "evaluation", "split": split, "after_task": after_task}
    return [where | record for record in records]


@torch.no_grad()
def count_labels(method: BaseMethod, batches: Iterable[Batch]) -> torch.Tensor:
    """Predict samples; several processes, which all call this, share the work.

    Args:
        method: The method; left in evaluation mode.
        batches: This process's part of the samples.

    Returns:
        What metrics are computed from, int64 (N, 3), for all processes' samples in order; see
        :func:`~iirc_train.metrics.label_counts`.
    """
    method.eval()
    counts = [torch.zeros(0, 3, dtype=torch.int64, device=method.device)]
    for batch in batches:
        counts.append(label_counts(method(batch.images), batch.targets.bool()))
    return gathered(torch.cat(counts))
