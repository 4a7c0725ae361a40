"""A finished run's numbers, read from its folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_train.run_directory import read_metrics

PWJS = "modified_jaccard_sim"


@dataclass(frozen=True)
class RunResults:
    """What a run scored on the test split, for one metric.

    Attributes:
        name: What to call the run.
        by_task: float (tasks, tasks): row t, column k is the score on task k after task t; NaN
            where k comes after t.
        all_seen: float (tasks,): score on all classes seen so far, each sample counted once.
    """

    name: str
    by_task: NDArray[np.float64]
    all_seen: NDArray[np.float64]


def read_results(path: Path, name: str | None = None, metric: str = PWJS) -> RunResults:
    """Read one metric of a run.

    Args:
        path: The run's folder.
        name: What to call the run; by default the folder's name.
        metric: A name out of :data:`iirc_train.metrics.METRICS`.

    Raises:
        ConfigurationError: The folder holds no run, or the run evaluated nothing yet.
    """
    records = [r for r in read_metrics(path) if r["kind"] == "evaluation" and r["split"] == "test"]
    if not records:
        raise ConfigurationError(f"{path} has no evaluation yet: its first task is not finished")
    n_tasks = 1 + max(record["after_task"] for record in records)
    by_task = np.full((n_tasks, n_tasks), np.nan)
    all_seen = np.full(n_tasks, np.nan)
    for record in records:
        if record["task"] == "all":
            all_seen[record["after_task"]] = record[metric]
        else:
            by_task[record["after_task"], record["task"]] = record[metric]
    return RunResults(name or path.name, by_task, all_seen)
