"""Settings in general: their names, errors that name the source of a wrong one, YAML."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from iirc_data.errors import ConfigurationError
from iirc_data.reading import read_text


class Settings(BaseModel):
    """A group of settings, checked by name and value; cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    published_names: ClassVar[Mapping[str, str]] = {}
    """Other names of settings, those of the published configurations."""

    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the names of the settings that can be given."""
        return [name for name in cls.model_fields if name not in cls.published_names]

    def values(self) -> dict[str, Any]:
        """Return the settings as plain values; :meth:`parse` reads them."""
        return self.model_dump(include=set(self.setting_names()))

    @classmethod
    def from_any(cls, config: "Mapping[str, Any] | BaseModel") -> Self:
        """Take this group's settings out of a larger configuration, typed or a plain mapping.

        Raises:
            ConfigurationError: A value is wrong; the message names the setting.
        """
        if isinstance(config, BaseModel):
            return cls.parse(config.model_dump(include=set(cls.setting_names())))
        known = {*cls.model_fields, *cls.published_names}
        return cls.parse({name: value for name, value in config.items() if name in known})

    @classmethod
    def checked_names(cls, values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
        """Return settings under our names.

        Args:
            values: Settings, under our names or the published ones.
            source: Where they are from, for errors.

        Raises:
            ConfigurationError: A name is unknown; the message tells the nearest right one. Or a
                setting is given under two names.
        """
        where = f"{source}: " if source else ""
        named: dict[str, Any] = {}
        for given, value in values.items():
            name = cls.published_names.get(given, given)
            if name not in cls.model_fields:
                known = [*cls.setting_names(), *cls.published_names]
                raise ConfigurationError(
                    f"{where}there is no setting {given!r}{nearest_name(str(given), known)}"
                )
            if name in named:
                raise ConfigurationError(f"{where}{given!r} gives {name!r} a second time")
            named[name] = value
        return named

    @classmethod
    def parse(cls, values: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> Self:
        """Check settings.

        Args:
            values: Settings, under our names or the published ones.
            sources: Where each is from, for errors.

        Raises:
            ConfigurationError: A name or value is wrong, or a setting is missing; the message
                names the setting, and the nearest right name.
        """
        named = cls.checked_names(values)
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
    """Return the question whether the nearest of the known names was meant, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _problem(problem: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """Say what is wrong with a value, and where it is from."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(message)
    source = sources.get(str(problem["loc"][0]))
    setting = ".".join(map(str, problem["loc"]))
    seen = reprlib.repr(problem["input"])
    hint = ""
    if problem["type"] == "literal_error":
        hint = nearest_name(str(problem["input"]), re.findall(r"'(.*?)'", message))
    return f"{f'{source}: ' if source else ''}{setting}: {message}, got {seen}{hint}"


class _Loader(yaml.SafeLoader):
    """Reads plain values: no tags, and no aliases, with which few lines become gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"alias *{event.anchor} is not read: write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a mapping of settings from YAML.

    Raises:
        ConfigurationError: The file is not readable, or holds something else.
    """
    try:
        values = _Loader(read_text(path)).get_single_data()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: a 13th month
        problem = " ".join(str(error).split())
        raise ConfigurationError(f"{path} is not YAML: {problem}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no settings: expected lines such as 'lr: 0.1'")
    return values
