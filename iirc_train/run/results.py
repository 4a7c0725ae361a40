"""Scores of a run, read from its folder."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_train.metrics import ACCURACIES, MAIN_METRIC, TOP1
from iirc_train.run.directory import METRICS_NAME, read_metrics

PWJS = MAIN_METRIC
JS = "jaccard_sim"


@dataclass(frozen=True)
class RunResults:
    """Scores of a run on the test split, for one metric.

    Attributes:
        name: Name of the run in tables and plots.
        by_task: float64 (tasks, tasks): row t, column k is the score on task k after task t; NaN
            for k > t.
        all_seen: float64 (tasks,): score on all classes seen so far, each sample counted once.
        metric: Name of the metric.
    """

    name: str
    by_task: NDArray[np.float64]
    all_seen: NDArray[np.float64]
    metric: str = PWJS


def main_metric(computed: Collection[str]) -> str:
    """Return the metric that runs are judged by: top-1 if they have accuracies, otherwise pw-JS.

    Args:
        computed: Names of the metrics that the runs computed.
    """
    return TOP1 if ACCURACIES.issubset(computed) else PWJS


def read_results(path: Path, name: str | None = None, metric: str | None = None) -> RunResults:
    """Read one metric of a run.

    Args:
        path: The run's folder.
        name: Name of the run in tables and plots; by default the folder's name.
        metric: Name of a metric in :data:`iirc_train.metrics.METRICS`; by default
            :func:`main_metric`.

    Raises:
        ConfigurationError: The folder contains no run, its metrics are damaged, or the run has
            no evaluation yet.
    """
    records = read_evaluations(path)
    if not records:
        raise ConfigurationError(f"{path} has no evaluation yet: its first task is not finished")
    metric = main_metric(records[0]) if metric is None else metric
    n_tasks = 1 + max(record["after_task"] for record in records)
    by_task = np.full((n_tasks, n_tasks), np.nan)
    all_seen = np.full(n_tasks, np.nan)
    try:
        for record in records:
            if record["task"] == "all":
                all_seen[record["after_task"]] = record[metric]
            else:
                by_task[record["after_task"], record["task"]] = record[metric]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigurationError(_damaged(path, record)) from error
    return RunResults(name or path.name, by_task, all_seen, metric)


def read_evaluations(path: Path) -> Sequence[dict[str, Any]]:
    """Read the evaluations on the test split that a run has made so far, if any.

    Raises:
        ConfigurationError: The folder contains no run, or its metrics are damaged.
    """
    records = read_metrics(path)
    for record in records:
        if not isinstance(record, dict) or "kind" not in record:
            raise ConfigurationError(_damaged(path, record))
    found = [r for r in records if r["kind"] == "evaluation" and r.get("split") == "test"]
    for record in found:
        after_task = record.get("after_task")
        if not isinstance(after_task, int) or after_task < 0:
            raise ConfigurationError(_damaged(path, record))
    return found


def _damaged(path: Path, record: object) -> str:
    return f"{path / METRICS_NAME} is damaged: it contains the line {str(record)[:80]}"
