"""The settings of groups of runs: those that all runs share, and those that differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iirc_train.report.runs import Group


@dataclass(frozen=True)
class SettingsTable:
    """Settings as text.

    Attributes:
        common: The settings that all runs share, by name.
        names: Names of the other settings.
        rows: For each group, its name and its values of the other settings.
    """

    common: dict[str, str]
    names: list[str]
    rows: list[tuple[str, list[str]]]


def settings_table(groups: Sequence[Group]) -> SettingsTable:
    """Return the settings of groups; if the runs of a group differ, all their values."""
    values = [[run.settings for run in group.runs] for group in groups]
    common, differing = {}, []
    names = dict.fromkeys(name for runs in values for run in runs for name in run)
    for name in names:
        found = _distinct([run.get(name, "") for runs in values for run in runs])
        if len(found) == 1:
            common[name] = found[0]
        else:
            differing.append(name)
    rows = [
        (
            group.name,
            [", ".join(_distinct([run.get(name, "") for run in runs])) for name in differing],
        )
        for group, runs in zip(groups, values, strict=True)
    ]
    return SettingsTable(common, differing, rows)


def _distinct(values: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(map(_text, values)))


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={of_name}" for name, of_name in value.items())
    return str(value)
