"""Groups of settings: names, roles, and errors that name the origin of a wrong value."""

import difflib
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from iirc_data.errors import ConfigurationError


class Role(Enum):
    """The role of a setting, given in the field's annotation.

    A setting without a role defines a run, but not the state that a branch of it starts from.
    """

    PLACE = "place"
    """The setting says where the data or the benchmark is."""

    MACHINE = "machine"
    """The setting says how and where the run computes, and how much of it is saved."""

    STATE = "state"
    """The setting shapes what a run has learned and kept, so a branch of the run has the same."""


class Settings(BaseModel):
    """An immutable group of settings whose names and values are validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    published_names: ClassVar[Mapping[str, str]] = {}
    """Name in the published configurations to the name here."""

    former_names: ClassVar[Mapping[str, str]] = {}
    """Earlier names of settings, which are hidden options of the command line."""

    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the names of all settings."""
        return [name for name in cls.model_fields if name not in cls.published_names]

    @classmethod
    def with_role(cls, *roles: Role) -> frozenset[str]:
        """Return the names of the settings with one of the roles."""
        return frozenset(
            name
            for name, field in cls.model_fields.items()
            if any(role in field.metadata for role in roles)
        )

    def values(self) -> dict[str, Any]:
        """Return the settings as plain values that :meth:`parse` reads."""
        return self.model_dump(include=set(self.setting_names()))

    @classmethod
    def from_any(cls, config: "Mapping[str, Any] | BaseModel") -> Self:
        """Return this group's settings from a larger configuration, typed or a plain mapping.

        Raises:
            ConfigurationError: A value is wrong; the message names the setting.
        """
        if isinstance(config, BaseModel):
            theirs = getattr(config, "published_names", {})  # of theirs, one of ours may be another
            values = config.model_dump()
            names = [name for name in cls.setting_names() if name in values]
            return cls.parse({name: values[theirs.get(name, name)] for name in names})
        known = {*cls.model_fields, *cls.published_names}
        return cls.parse({name: value for name, value in config.items() if name in known})

    @classmethod
    def checked_names(
        cls, values: Mapping[str, Any], source: str = "", own: Collection[str] = ()
    ) -> dict[str, Any]:
        """Check the names of settings, and replace published names.

        Args:
            values: Settings by name; published names work too.
            source: Origin of the settings, for error messages.
            own: Names of further settings to accept: those that a method adds.

        Raises:
            ConfigurationError: A name is unknown (the message names the nearest one), or a setting
                is given under two names.
        """
        where = f"{source}: " if source else ""
        named: dict[str, Any] = {}
        for given, value in values.items():
            name = cls.published_names.get(given, given)
            if name not in cls.model_fields and name not in own:
                known = [*cls.setting_names(), *cls.published_names, *own]
                raise ConfigurationError(
                    f"{where}there is no setting {given!r}{nearest_name(str(given), known)}"
                )
            if name in named:
                raise ConfigurationError(f"{where}{given!r} gives {name!r} a second time")
            named[name] = value
        return named

    @classmethod
    def parse(
        cls,
        values: Mapping[str, Any],
        sources: Mapping[str, str] | None = None,
        own: Collection[str] = (),
    ) -> Self:
        """Check settings.

        Args:
            values: Settings by name; published names work too.
            sources: Name of each setting to its origin, for error messages.
            own: Names of further settings to accept: those that a method adds.

        Raises:
            ConfigurationError: A name or value is wrong, or a required setting is missing; the
                message names the setting, and the nearest name.
        """
        named = cls.checked_names(values, own=own)
        missing = [n for n, field in cls.model_fields.items() if field.is_required()]
        if missing := [name for name in missing if name not in named]:
            raise ConfigurationError(
                f"no value for {', '.join(missing)}: give it as an option, in a YAML file or by "
                "a preset"
            )
        try:
            return cls.model_validate(named)
        except ValidationError as error:
            problems = [_problem(problem, sources or {}) for problem in error.errors()]
            raise ConfigurationError(f"wrong configuration: {'; '.join(problems)}") from error


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _problem(problem: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """Describe what is wrong with a value, and where the value came from."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(message)
    source = sources.get(str(problem["loc"][0]))
    setting = ".".join(map(str, problem["loc"]))
    seen = reprlib.repr(problem["input"])
    return f"{f'{source}: ' if source else ''}{setting}: {message}, got {seen}{_hint(problem)}"


def _hint(problem: Mapping[str, Any]) -> str:
    value = problem["input"]
    if value is None:
        return " (empty, null or ~): give a value, or leave the setting out"
    if problem["type"] == "literal_error":
        return nearest_name(str(value), re.findall(r"'(.*?)'", problem["msg"]))
    if problem["type"] == "string_type":
        return ": put text in quotes"
    return ""
