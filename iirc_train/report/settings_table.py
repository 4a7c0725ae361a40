"""The settings of groups of runs: what all share, and what tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iirc_train.report.runs import Group


@dataclass(frozen=True)
class SettingsTable:
    """Settings as text.

    Attributes:
        common: Setting to value, where all runs share it.
        names: The other settings.
        rows: Group's name, and its values of these.
    """

    common: dict[str, str]
    names: list[str]
    rows: list[tuple[str, list[str]]]


def settings_table(groups: Sequence[Group]) -> SettingsTable:
    """Return the settings of groups; where a group's runs differ, their values side by side."""
    values = [[run.config.values() for run in group.runs] for group in groups]
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
    return str(value)
