"""The record of a finished task: summary numbers so far, size of the network and the memories."""

from pathlib import Path
from typing import Any

from iirc_data.definitions import TEST
from iirc_train.buffer import BufferBase
from iirc_train.methods.base_method import BaseMethod
from iirc_train.run.results import computed_metrics, main_metric, read_evaluations, results_of
from iirc_train.run.summaries import forgetting_of_levels, summaries_of, summary_of


def task_record(
    run: Path, method: BaseMethod, buffer: BufferBase, after_task: int
) -> dict[str, Any]:
    """Return what ``metrics.jsonl`` records of a task that is trained and evaluated.

    Args:
        run: The run's folder, which holds the evaluations of the task.
        method: The method.
        buffer: The memories.
        after_task: The task.

    Returns:
        The summary numbers of the tasks so far; ``parameters`` of the network, without those of a
        teacher; number of ``exemplars``, and ``exemplar_bytes`` of their encoded images;
        ``statistics_bytes``, if the method keeps statistics; and with ``hcv`` ``superclasses``, the
        superclass discovered for each class that has one.
    """
    evaluations = read_evaluations(run)
    of_levels = forgetting_of_levels(computed_metrics(evaluations))
    summaries = (*summaries_of(main_metric(evaluations[0])), *of_levels)
    metrics = dict.fromkeys(summary.metric for summary in summaries)
    statistics = method.statistics.n_bytes
    return {
        "kind": "task",
        "split": TEST,
        "after_task": after_task,
        **summary_of(results_of(evaluations, run, metrics)),
        "parameters": sum(parameter.numel() for parameter in method.net.parameters()),
        "exemplars": len(buffer),
        "exemplar_bytes": buffer.n_bytes,
        **({"statistics_bytes": statistics} if statistics else {}),
        **({} if method.config.hcv == "off" else {"superclasses": method.found_superclasses}),
    }
