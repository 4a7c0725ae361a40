"""The scores at each level of the hierarchy."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from iirc_train.metrics.hierarchy import taxonomy_of
from iirc_train.metrics.labels import label_counts, modified_jaccard, recalled
from iirc_train.metrics.metric import Metric
from iirc_train.metrics.outputs import Outputs


def counts_by_level(outputs: Outputs) -> torch.Tensor:
    """Return :func:`~iirc_train.metrics.labels.label_counts` of the labels at each level.

    Returns:
        int64 (N, levels, 3); -1 where the sample has no true label at the level.
    """
    counts = torch.stack(
        [label_counts(outputs.predictions[:, at], outputs.targets[:, at]) for at in _at(outputs)],
        dim=1,
    )
    return torch.where(counts[:, :, 1:2] > 0, counts, -1)


def highest_by_level(outputs: Outputs) -> torch.Tensor:
    """Return whether the class of a level with the highest score is a true label.

    Returns:
        int64 (N, levels): 0 or 1; -1 where the sample has no true label at the level.
    """
    assert outputs.scores is not None
    rows = []
    for at in _at(outputs):
        targets = outputs.targets[:, at]
        if not len(at):
            rows.append(torch.full((len(targets),), -1, device=targets.device))
            continue
        highest = outputs.scores[:, at].argmax(dim=1, keepdim=True)
        right = targets.gather(1, highest).squeeze(1).long()
        rows.append(torch.where(targets.any(dim=1), right, -1))
    return torch.stack(rows, dim=1)


def _at(outputs: Outputs) -> list[torch.Tensor]:
    return taxonomy_of(outputs).classes_at_level


LEVEL_METRICS: dict[str, Metric] = {
    "modified_jaccard_sim": Metric(
        "pw-JS", modified_jaccard, counts_by_level, needs_hierarchy=True, shown=False, tracked=True
    ),
    "recall": Metric("recall", recalled, counts_by_level, needs_hierarchy=True, shown=False),
    "accuracy": Metric(
        "accuracy",
        lambda right: right.float().mean(),
        highest_by_level,
        needs_hierarchy=True,
        needs_scores=True,
        shown=False,
    ),
}
"""The metrics that are computed at each level, by the end of their name in ``metrics.jsonl``.

Their ``keep`` returns rows (N, levels, ...), which are -1 where a metric leaves the sample out.
Their ``value`` receives the rows of one level, (M, ...), without those.
"""


def at_level(metric: Metric, level: int) -> Metric:
    """Return a row of :data:`LEVEL_METRICS` for one level."""
    return replace(
        metric,
        label=f"{metric.label} at level {level}",
        value=_value_at(metric.value, level),
        may_be_undefined=True,
    )


def metrics_of_levels(n_levels: int) -> dict[str, Metric]:
    """Return the metrics of each level by name, such as ``"level_1_recall"``."""
    return {
        level_name(name, level): at_level(metric, level)
        for level in range(n_levels)
        for name, metric in LEVEL_METRICS.items()
    }


def level_name(name: str, level: int) -> str:
    """Return the name in ``metrics.jsonl`` of a row of :data:`LEVEL_METRICS` for one level."""
    return f"level_{level}_{name}"


def metric_at_level(name: str) -> Metric | None:
    """Return the metric that :func:`level_name` names; None if it names none."""
    match = re.fullmatch(r"level_(\d+)_(\w+)", name)
    metric = LEVEL_METRICS.get(match[2]) if match else None
    return at_level(metric, int(match[1])) if match and metric else None


def levels_of(computed: Iterable[str]) -> list[int]:
    """Return, ascending, the levels of the metrics of some names.

    A level of which no class has been seen yet, such as that of a superclass that comes after its
    subclasses, has no metrics.
    """
    matches = (re.match(r"level_(\d+)_", name) for name in computed)
    return sorted({int(match[1]) for match in matches if match})


def _value_at(
    value: Callable[[torch.Tensor], torch.Tensor], level: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    def of_level(rows: torch.Tensor) -> torch.Tensor:
        own = rows[:, level]
        own = own[(own >= 0).flatten(start_dim=1).all(dim=1) if own.dim() > 1 else own >= 0]
        return value(own) if len(own) else torch.tensor(torch.nan)

    return of_level
