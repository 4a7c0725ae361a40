"""The curves of the IIRC paper, for comparison."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_train.config.experiment import ExperimentConfig

_FILE = Path(__file__).with_name("paper_curves.json")


@dataclass(frozen=True)
class PaperCurve:
    """A curve of the paper.

    Attributes:
        name: The paper's name of the method.
        scores: float (tasks,): score after each task; NaN where the figure hides it. Joint training
            has a single score.
    """

    name: str
    scores: NDArray[np.float64]


@cache
def _published() -> dict[str, Any]:
    published: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return published


def paper_attribution() -> str:
    """Return the source of the curves."""
    return str(_published()["attribution"])


def paper_curves(benchmark: str, metric: str) -> list[PaperCurve]:
    """Return the paper's curves for a benchmark; empty if the paper has none.

    Args:
        benchmark: Name of the benchmark.
        metric: A key of :data:`iirc_train.metrics.METRICS`.
    """
    curves = _published()["curves"].get(benchmark, {}).get(metric, {})
    return [
        PaperCurve(name, np.atleast_1d(np.array(scores, dtype=np.float64)))
        for name, scores in curves.items()
    ]


def paper_name(config: ExperimentConfig) -> str | None:
    """Return the paper's name for a configuration's method; None if the paper lacks the method."""
    if config.joint:
        return "joint"
    if config.incremental_joint:
        return "incremental joint"
    if config.method == "finetune":
        replays = config.keeps_memories
        return "ER" if replays else "finetune"
    names = {
        "agem": "A-GEM",
        "icarl_cnn": "iCaRL-CNN",
        "icarl_norm": "iCaRL-norm",
        "lucir": "LUCIR",
    }
    return names.get(config.method)
