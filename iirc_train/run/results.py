"""Scores of a run, read from its folder."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_train.metrics import ACCURACIES, MAIN_METRIC, TOP1, is_of_hierarchy
from iirc_train.run.directory import METRICS_NAME, read_metrics

PWJS = MAIN_METRIC
JS = "jaccard_sim"


@dataclass(frozen=True)
class RunResults:
    """Scores of a run on the test split, for one metric.

    Attributes:
        name: Name of the run in tables and plots.
        by_task: float64 (tasks, tasks): row t, column k is the score on task k after task t; NaN
            for k > t, and where the metric is undefined.
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
        metric: Name of a metric in ``metrics.jsonl``; by default :func:`main_metric`.

    Raises:
        ConfigurationError: The folder contains no run, its metrics are damaged, or the run has
            no evaluation yet.
    """
    records = read_some_evaluations(path)
    metric = main_metric(records[0]) if metric is None else metric
    return results_of(records, path, [metric], name)[metric]


def results_of(
    records: Sequence[Mapping[str, Any]],
    path: Path,
    metrics: Iterable[str],
    name: str | None = None,
) -> dict[str, RunResults]:
    """Return some metrics of a run from its evaluations; see :func:`read_results`.

    Args:
        records: The evaluations, at least one.
        path: The run's folder.
        metrics: Names of the metrics.
        name: Name of the run in tables and plots; by default the folder's name.
    """
    name = name or path.name
    return {metric: RunResults(name, *_scores(records, path, metric), metric) for metric in metrics}


def computed_metrics(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the names of the metrics that a run computed, and of other fields of its evaluations.

    Those of the hierarchy may be undefined in the first evaluations.
    """
    names = {name for record in records for name in record}
    return {*(records[0] if records else ()), *filter(is_of_hierarchy, names)}


def _scores(
    records: Sequence[Mapping[str, Any]], path: Path, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n_tasks = 1 + max(record["after_task"] for record in records)
    by_task = np.full((n_tasks, n_tasks), np.nan)
    all_seen = np.full(n_tasks, np.nan)
    may_lack = is_of_hierarchy(metric) and any(metric in record for record in records)
    try:
        for record in records:
            score = record.get(metric, np.nan) if may_lack else record[metric]
            if record["task"] == "all":
                all_seen[record["after_task"]] = score
            else:
                by_task[record["after_task"], record["task"]] = score
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigurationError(_damaged(path, record)) from error
    return by_task, all_seen


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


def read_some_evaluations(path: Path) -> Sequence[dict[str, Any]]:
    """Read the evaluations of a run that has made at least one; see :func:`read_evaluations`.

    Raises:
        ConfigurationError: As there, or the run has no evaluation yet.
    """
    records = read_evaluations(path)
    if not records:
        raise ConfigurationError(f"{path} has no evaluation yet: its first task is not finished")
    return records


def _damaged(path: Path, record: object) -> str:
    return f"{path / METRICS_NAME} is damaged: it contains the line {str(record)[:80]}"
