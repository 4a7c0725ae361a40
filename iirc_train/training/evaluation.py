"""Evaluation: metrics and confusion counts of a method on a view."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from iirc_data.definitions import POSTTASK_VALID, TEST, SplitName
from iirc_data.loader import Batch
from iirc_data.task_sequence import TaskSequence
from iirc_data.task_view import TaskView
from iirc_train.methods.base_method import BaseMethod
from iirc_train.metrics import Outputs, SeenTaxonomy, Tally, add_confusion_counts, edge_scores
from iirc_train.run.confusion import Confusion
from iirc_train.runtime.distributed import gathered, total

MakeLoader = Callable[[TaskView], Iterable[Batch]]
"""Makes a loader of this process's part of a view, in order and without augmentation."""


class Evaluation(NamedTuple):
    """Evaluation of a method on one split.

    Attributes:
        records: A record per task, then one with task ``"all"``, in which each sample counts once.
        confusion: Confusion counts over all samples.
    """

    records: list[dict[str, Any]]
    confusion: Confusion


def evaluate(method: BaseMethod, batches: Iterable[Batch]) -> dict[str, float]:
    """Return a method's metrics on the samples of all processes' batches."""
    tally = Tally(method.n_seen_classes, method.device, decision=method.config.decision)
    with method.inference():
        for outputs in outputs_of(method, batches):
            tally.add(outputs)
    return tally.kept(gathered).values()


def evaluate_after_task(
    method: BaseMethod,
    splits: Mapping[SplitName, TaskSequence],
    after_task: int,
    make_loader: MakeLoader,
) -> Evaluation:
    """Validate and test a method on every task seen so far, and on all their classes together.

    Args:
        method: The method.
        splits: The tasks of each split.
        after_task: Latest task seen.
        make_loader: Makes the loader of a view.

    Returns:
        The records of post-task validation, if it has samples, followed by those of the test
        split; and the confusion counts of the test split.
    """
    records: list[dict[str, Any]] = []
    if len(splits[POSTTASK_VALID].view(range(after_task + 1))):
        sequence = splits[POSTTASK_VALID]
        records += evaluate_tasks(method, sequence, POSTTASK_VALID, after_task, make_loader).records
    test = evaluate_tasks(method, splits[TEST], TEST, after_task, make_loader)
    return Evaluation(records + test.records, test.confusion)


def evaluate_tasks(
    method: BaseMethod,
    sequence: TaskSequence,
    split: SplitName,
    after_task: int,
    make_loader: MakeLoader,
) -> Evaluation:
    """Evaluate a method on every task seen so far, and on all their classes together.

    Each image is predicted once, even if several tasks show it. All processes must call this
    function, and share the work.

    Args:
        method: The method; not changed.
        sequence: The tasks of one split, with complete information.
        split: Name of the split, for the records.
        after_task: Latest task seen.
        make_loader: Makes the loader of a view.
    """
    everything = sequence.view(range(after_task + 1))
    n = everything.n_seen_classes
    confusion = torch.zeros(n, n, dtype=torch.int64, device=method.device)
    most_labels = everything.labels.shape[1]
    n_samples = torch.zeros(n, dtype=torch.int64, device=method.device)
    relation = sequence.ancestors
    taxonomy = None if relation is None else SeenTaxonomy.of(relation).seen(n)
    tally = Tally(n, method.device, decision=method.config.decision, taxonomy=taxonomy)
    with method.inference():
        for outputs in outputs_of(method, make_loader(everything)):
            tally.add(outputs)
            add_confusion_counts(confusion, outputs.predictions, outputs.targets, most_labels)
            n_samples += outputs.targets.sum(dim=0)
    counted = Confusion(
        list(everything.seen_class_names),
        total(confusion).cpu().numpy(),
        total(n_samples).cpu().numpy(),
    )
    edges = {} if taxonomy is None else edge_scores(counted.counts, counted.n_samples, taxonomy)
    kept = tally.kept(gathered)
    where: dict[str, Any] = {"kind": "evaluation", "split": split, "after_task": after_task}
    records = []
    for task in range(after_task + 1):
        shown = sequence.view(task, seen_up_to=after_task).sample_ids
        rows = np.searchsorted(everything.sample_ids, shown)
        records.append({**where, "task": task, "n_samples": len(rows), **kept.of(rows).values()})
    of_all = {"task": "all", "n_samples": len(everything), **kept.values(), **edges}
    records.append({**where, **of_all})
    return Evaluation(records, counted)


def outputs_of(method: BaseMethod, batches: Iterable[Batch]) -> Iterator[Outputs]:
    """Predict samples batch by batch.

    Args:
        method: The method, within its ``inference()``.
        batches: The samples.

    Yields:
        What the method says of a batch, on the method's device.
    """
    for batch in batches:
        scores, predictions = method.scores_and_predictions(batch.images)
        yield Outputs(predictions, batch.targets.bool(), scores, method.task_of_class)
