"""Summary numbers of a run, as continual learning defines them: functions of its scores."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from iirc_train.metrics import TOP1, level_name, levels_of, metric_label
from iirc_train.run.results import PWJS, RunResults, main_metric


def average_incremental_score(results: RunResults) -> float:
    """Return the mean over tasks of the score on all classes seen so far.

    Defined for the accuracy in Rebuffi et al., iCaRL: Incremental Classifier and Representation
    Learning, CVPR 2017, section 4.
    """
    return float(np.mean(results.all_seen))


def final_score(results: RunResults) -> float:
    """Return the score on all seen classes after the last task."""
    return float(results.all_seen[-1])


def forgetting(results: RunResults) -> float:
    """Return the mean loss between the best and the final score on each earlier task.

    With T tasks and a[l, j] the score on task j after task l, this is the mean over j < T of
    (max over l < T of a[l, j]) - a[T, j]. Chaudhry et al., Riemannian Walk for Incremental
    Learning, ECCV 2018, section 3.

    Returns:
        In [-1, 1]; NaN for a single task. Tasks whose score was undefined before the last task,
        such as that at a level without labels so far, do not count.
    """
    scores = results.by_task
    if len(scores) < 2:
        return np.nan
    earlier = scores[:-1, :-1]
    best = np.where(np.isnan(earlier), -np.inf, earlier).max(axis=0)
    lost = (best - scores[-1, :-1])[best > -np.inf]
    return float(np.mean(lost)) if len(lost) else np.nan


def backward_transfer(results: RunResults) -> float:
    """Return the mean change of the score on a task after it was learnt.

    With T tasks and R[i, j] the score on task j after task i, this is the mean over i < T of
    R[T, i] - R[i, i]. Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning,
    NeurIPS 2017, equation 3.

    Returns:
        In [-1, 1], negative if tasks are forgotten; NaN for a single task.
    """
    scores = results.by_task
    if len(scores) < 2:
        return np.nan
    return float(np.mean(scores[-1, :-1] - np.diag(scores)[:-1]))


class Summary(NamedTuple):
    """A summary number.

    Attributes:
        name: Name in ``metrics.jsonl``.
        heading: Heading of its column.
        metric: Name of the metric that it summarises.
        value: Computes it.
        lower_is_better: Whether a lower value is better.
    """

    name: str
    heading: str
    metric: str
    value: Callable[[RunResults], float]
    lower_is_better: bool = False


_PWJS_SUMMARIES = (
    Summary(
        "average_incremental_pwjs", "average incremental pw-JS", PWJS, average_incremental_score
    ),
    Summary("final_pwjs", "final pw-JS", PWJS, final_score),
    Summary("forgetting", "forgetting", PWJS, forgetting, lower_is_better=True),
    Summary("backward_transfer", "backward transfer", PWJS, backward_transfer),
)

_ACCURACY_SUMMARIES = (
    Summary(
        "average_incremental_accuracy",
        "average incremental accuracy",
        TOP1,
        average_incremental_score,
    ),
    Summary("last_accuracy", "last accuracy", TOP1, final_score),
    Summary("forgetting", "forgetting", TOP1, forgetting, lower_is_better=True),
    Summary("backward_transfer", "backward transfer", TOP1, backward_transfer),
    Summary(
        "average_incremental_top5", "average incremental top-5", "top5", average_incremental_score
    ),
    Summary("last_top5", "last top-5", "top5", final_score),
    Summary(
        "last_task_incremental_accuracy",
        "last task-incremental accuracy",
        "task_incremental_accuracy",
        final_score,
    ),
)


def summaries_of(metric: str) -> tuple[Summary, ...]:
    """Return the summaries of runs that are judged by a metric.

    Args:
        metric: Name of the metric; see :func:`~iirc_train.run.results.main_metric`.
    """
    return _ACCURACY_SUMMARIES if metric == TOP1 else _PWJS_SUMMARIES


class SummaryTable(NamedTuple):
    """Summary numbers that tables show together.

    Attributes:
        title: Title.
        summaries: The summary numbers.
    """

    title: str
    summaries: tuple[Summary, ...]


_CONSISTENCY = ("hierarchical_f1", "superclass_consistency", "subclass_consistency")
_EDGES = ("edge_precision", "edge_recall", "edge_f1")
_MISTAKES = ("mistake_severity", *(f"hierarchical_distance_top{k}" for k in (1, 5, 20)))


def summary_tables(metric: str, computed: Collection[str]) -> tuple[SummaryTable, ...]:
    """Return the tables of summaries: of the runs, and of what they know of the hierarchy.

    Args:
        metric: Name of the metric that the runs are judged by.
        computed: Names of the metrics that any of the runs computed.
    """
    tables = (
        SummaryTable("summary over the finished runs", summaries_of(metric)),
        SummaryTable("the hierarchy, after the last task", _final(_CONSISTENCY, computed)),
        SummaryTable("discovered edges, after the last task", _final(_EDGES, computed)),
        SummaryTable(
            "mistakes in the hierarchy, after the last task",
            _final(_MISTAKES, computed, lower_is_better=True),
        ),
        SummaryTable("each level, after the last task", _scores_of_levels(computed)),
        SummaryTable("forgetting at each level", forgetting_of_levels(computed)),
    )
    return tuple(table for table in tables if table.summaries)


def _final(
    metrics: Sequence[str], computed: Collection[str], *, lower_is_better: bool = False
) -> tuple[Summary, ...]:
    return tuple(
        Summary(f"final_{metric}", metric_label(metric), metric, final_score, lower_is_better)
        for metric in metrics
        if metric in computed
    )


def _scores_of_levels(computed: Collection[str]) -> tuple[Summary, ...]:
    return tuple(
        Summary(
            level_name("final_pwjs", level),
            metric_label(level_name(PWJS, level)),
            level_name(PWJS, level),
            final_score,
        )
        for level in levels_of(computed)
    )


def forgetting_of_levels(computed: Collection[str]) -> tuple[Summary, ...]:
    """Return the summaries of :func:`forgetting` at each level of which some scores are computed.

    Args:
        computed: Names of metrics.
    """
    return tuple(
        Summary(
            level_name("forgetting", level),
            f"forgetting at level {level}",
            level_name(PWJS, level),
            forgetting,
            lower_is_better=True,
        )
        for level in levels_of(computed)
    )


def metric_name(metric: str) -> str:
    """Return how a text names a metric: "accuracy" for top-1, otherwise its label."""
    return "accuracy" if metric == TOP1 else metric_label(metric)


def summary_of(results: Mapping[str, RunResults]) -> dict[str, float]:
    """Return the summary numbers of a run by name, with forgetting at each level.

    Forgetting is defined after a second task.

    Args:
        results: The scores of the run by name of the metric.
    """
    summaries = (*summaries_of(main_metric(results)), *forgetting_of_levels(results))
    found = {s.name: s.value(results[s.metric]) for s in summaries}
    return {name: value for name, value in found.items() if not np.isnan(value)}
