"""Command-line options, generated from the settings of a run."""

import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import BufferConfig, ExperimentConfig, MethodConfig
from iirc_train.config.own_settings import check_names, own_names
from iirc_train.config.places import at_home
from iirc_train.config.settings import Settings
from iirc_train.methods import METHODS
from iirc_train.methods.settings import method_configs

_GROUPS: dict[str, type[Settings]] = {"Replay buffer": BufferConfig, "Method": MethodConfig}


def with_settings(own: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command its own options, and one option for each remaining setting.

    The decorated function has an attribute ``renew_options``, a function that updates the options
    to the methods that are currently registered; :class:`~iirc_train.cli.lazy.LazyGroup` calls it.

    Args:
        own: Name of each of the command's own options, and of its context if it needs one, to the
            annotated type. Options that the user does not give are None.

    Returns:
        A decorator for the command's function, which receives all options by name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def renew() -> None:
            options = _options(own)
            command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
            command.__annotations__ = {option.name: option.annotation for option in options}

        command.renew_options = renew  # type: ignore[attr-defined]
        renew()
        return command

    return decorate


def _options(own: Mapping[str, Any]) -> list[inspect.Parameter]:
    options = [_option(name, annotation) for name, annotation in own.items()]
    names = [name for name in ExperimentConfig.setting_names() if name not in own]
    names.sort(key=lambda name: _panel(name) in _GROUPS)
    fields = ExperimentConfig.model_fields
    options += [_setting(name, [fields[name]], _panel(name)) for name in names]
    hidden = Annotated[str | None, typer.Option(hidden=True)]
    former = [_option(name, hidden) for name in ExperimentConfig.former_names]
    return [*options, *_options_of_methods(own), *former]


def _options_of_methods(taken: Container[str]) -> Iterator[inspect.Parameter]:
    """Yield an option for each setting that methods add to the common ones."""
    methods = method_configs()
    for method, config in methods.items():
        check_names(method, config)
    names = dict.fromkeys(name for config in methods.values() for name in own_names(config))
    for name in names:
        owners = [method for method, config in methods.items() if name in own_names(config)]
        if name in taken:
            raise ConfigurationError(
                f"method {owners[0]!r} adds a setting {name!r}, but the command already has an "
                "option of that name: rename the setting in the method's class Config"
            )
        fields = [methods[method].model_fields[name] for method in owners]
        yield _setting(name, fields, f"Settings of {', '.join(owners)}")


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the user gave, as the configuration reads them."""
    return {
        ExperimentConfig.former_names.get(name, name): (
            " ".join(value) if isinstance(value, list) and name != "data" else value
        )
        for name, value in settings.items()
        if value is not None and value != []
    }


def at_home_if_given(path: Path | None) -> Path | None:
    """Replace a leading ``~`` of a path with the home folder; None stays None."""
    return None if path is None else at_home(path)


def _setting(name: str, fields: Sequence[FieldInfo], panel: str) -> inspect.Parameter:
    """Return the option for a setting, which several methods may declare."""
    field = fields[0]
    choices = list(METHODS) if name == "method" else _choices(field.annotation)
    text = field.description or name
    text = f"{text} ({', '.join(choices)})." if choices else f"{text}."
    default = field.get_default(call_default_factory=True)
    if all(not f.is_required() and f.get_default() == field.default for f in fields):
        text += "" if default is None else default_in_help(default)
    kinds = {_parsed_as(f.annotation) for f in fields}
    kind = (kinds.pop() if len(kinds) == 1 else str) | None
    return _option(name, Annotated[kind, typer.Option(help=text, rich_help_panel=panel)])


def default_in_help(value: object) -> str:
    """Return the text that shows a default in the help of an option that has none itself."""
    shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
    return f" [dim]\\[default: {shown}][/]"


def _choices(annotation: Any) -> list[str]:
    return [value for value in get_args(annotation) if isinstance(value, str)]


def _panel(name: str) -> str:
    """Return the heading of a setting in the help text."""
    found = (heading for heading, group in _GROUPS.items() if name in group.model_fields)
    return next(found, "Experiment")


def _option(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _parsed_as(annotation: Any) -> Any:
    """Return the type that the command line parses; the configuration checks the value."""
    kinds = [annotation]
    for kind in kinds:  # the list grows while types are unpacked
        kinds += get_args(kind)
    if any(get_origin(kind) in (list, dict) for kind in kinds):
        return list[str]
    if str in kinds:
        return str
    return next((kind for kind in kinds if kind in (bool, int, float)), str)
