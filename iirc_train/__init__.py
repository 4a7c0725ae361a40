"""Training half: methods learn from batches and a replay buffer; metrics and reports follow.

Names are imported when they are first used, so importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

import iirc_data  # noqa: F401  how threads wait is set there, before torch is imported

if TYPE_CHECKING:
    from iirc_train.config.compose import compose
    from iirc_train.config.experiment import ExperimentConfig
    from iirc_train.methods import METHODS, MethodParts, get_method
    from iirc_train.metrics import METRICS, Metric
    from iirc_train.run.results import RunResults, read_results
    from iirc_train.training.api import resume, train

__all__ = [
    "METHODS",
    "METRICS",
    "ExperimentConfig",
    "MethodParts",
    "Metric",
    "RunResults",
    "compose",
    "get_method",
    "read_results",
    "resume",
    "train",
]

_MODULES = {
    "METHODS": "methods",
    "ExperimentConfig": "config.experiment",
    "MethodParts": "methods",
    "RunResults": "run.results",
    "compose": "config.compose",
    "METRICS": "metrics",
    "Metric": "metrics",
    "get_method": "methods",
    "read_results": "run.results",
    "resume": "training.api",
    "train": "training.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
