"""Scores of a run, read from its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_train.metrics import MAIN_METRIC
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
    """

    name: str
    by_task: NDArray[np.float64]
    all_seen: NDArray[np.float64]


def read_results(path: Path, name: str | None = None, metric: str = PWJS) -> RunResults:
    """Read one metric of a run.

    Args:
        path: The run's folder.
        name: Name of the run in tables and plots; by default the folder's name.
        metric: Name of a metric in :data:`iirc_train.metrics.METRICS`.

    Raises:
        ConfigurationError: The folder contains no run, its metrics are damaged, or the run has
            no evaluation yet.
    """
    records = read_evaluations(path)
    if not records:
        raise ConfigurationError(f"{path} has no evaluation yet: its first task is not finished")
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
    return RunResults(name or path.name, by_task, all_seen)


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
