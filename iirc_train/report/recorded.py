"""What the record of a run adds to its settings: its data, its precision, and its origin."""

from collections.abc import Iterable, Mapping
from typing import Any

from iirc_train.config.experiment import ExperimentConfig
from iirc_train.run.record import resolved_values
from iirc_train.run.resolved import WEIGHTS_DIGEST

REPETITION_SETTINGS = frozenset({"schedule", "seed"})
"""Settings that differ between repetitions of one experiment."""

BRANCH = "branch"
"""Name of the tasks after which a branch, and the branches before it, left another run."""

CHANGES = "changed"
"""Name of the settings that these branches changed."""

_DIGITS = 16  # of a digest


def recorded_settings(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what defines a run but is not, or not precisely, in its configuration.

    Args:
        record: The run's record. An earlier release may not have written all entries.

    Returns:
        Values by name, as far as they are recorded. ``precision`` is what the setting resolved to.
    """
    values = {
        "precision": _then(resolved_values(record, "precision")),
        "dataset digest": record["dataset"].get("digest", "")[:_DIGITS],
        "weights digest": next(iter(resolved_values(record, WEIGHTS_DIGEST)), "")[:_DIGITS],
    }
    return {name: value for name, value in (values | _branch(record)).items() if value}


def _branch(record: Mapping[str, Any]) -> dict[str, str]:
    """Return how a branch, and the branches that it comes from, were made; nothing if none was."""
    origins: list[Mapping[str, Any]] = []
    while (origin := record.get("parent")) is not None:
        origins.insert(0, origin)
        record = origin
    if not origins:
        return {}
    return {
        BRANCH: _then(f"after task {origin['task']}" for origin in origins),
        CHANGES: _then(_changes(origin["settings"]) for origin in origins),
        "precision before": _then(filter(None, map(_precision, origins))),
    }


def _precision(origin: Mapping[str, Any]) -> str:
    return _then(origin.get("precision", ()))  # an earlier release did not record it


def _then(values: Iterable[str]) -> str:
    return ", then ".join(values)


def _changes(settings: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [name for name in settings if name not in ExperimentConfig.free_settings()]
    return ", ".join(_change(name, **settings[name]) for name in shown) or "nothing"


def _change(name: str, before: Any, after: Any) -> str:
    # seeds of the runs that branches come from may differ, as between any repetitions
    since = "" if name in REPETITION_SETTINGS else f" from {before}"
    return f"{name}{since} to {after}"
