"""Means and standard deviations over runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iirc_train.run.results import RunResults

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over runs.

    Attributes:
        mean: Mean over the runs that have the value; NaN if no run has it.
        sd: Sample standard deviation (with divisor n - 1); NaN for fewer than two runs.
        n_runs: Number of runs that have the value.
    """

    mean: float
    sd: float
    n_runs: int

    def text(self, between: str = " ± ", digits: int = 3) -> str:
        """Return ``"0.123 ± 0.045"``; only the mean for one run, and ``""`` for no run."""
        if not self.n_runs:
            return ""
        deviation = f"{between}{self.sd:.{digits}f}" if self.n_runs > 1 else ""
        return f"{self.mean:.{digits}f}{deviation}"


def spread(values: Sequence[float] | Scores) -> Spread:
    """Return mean and standard deviation; NaN marks a value that a run does not have."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return Spread(
        float(known.mean()) if len(known) else np.nan,
        float(known.std(ddof=1)) if len(known) > 1 else np.nan,
        len(known),
    )


def curve_of(runs: Sequence[RunResults]) -> list[Spread]:
    """Return the spread over runs of the score on all seen classes after each task.

    The spread of a task is over the runs that have finished it.
    """
    n_tasks = max(len(run.all_seen) for run in runs)
    return [
        spread([run.all_seen[task] for run in runs if task < len(run.all_seen)])
        for task in range(n_tasks)
    ]


def mean_of_known(given: Sequence[Scores] | Sequence[float] | Scores) -> Scores:
    """Return the mean over the first axis of the values that are not NaN; NaN for none."""
    values = np.asarray(given)
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    mean: Scores = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def mean_by_task(runs: Sequence[RunResults]) -> Scores:
    """Return the mean over runs of the score on each task after each task.

    Returns:
        float (tasks, tasks), tasks evaluated in columns; NaN where no run has a score.
    """
    n_tasks = max(len(run.by_task) for run in runs)
    scores = np.full((len(runs), n_tasks, n_tasks), np.nan)
    for of_run, run in zip(scores, runs, strict=True):
        n = len(run.by_task)
        of_run[:n, :n] = run.by_task
    return mean_of_known(scores)
