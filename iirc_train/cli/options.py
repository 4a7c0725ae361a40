"""An option for every setting of a run, so that each is documented once."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from iirc_train.config.experiment import BufferConfig, ExperimentConfig, MethodConfig
from iirc_train.config.places import at_home
from iirc_train.config.settings import Settings
from iirc_train.methods import METHODS

_GROUPS: dict[str, type[Settings]] = {"Replay buffer": BufferConfig, "Method": MethodConfig}


def with_settings(own: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options of its own, followed by one for each setting that they leave.

    Args:
        own: Annotated type of each of the command's own options, and of its context where it asks
            for that. Options that are not given are None.

    Returns:
        A decorator for the command's function, which takes all of them by name.
    """
    options = [_option(name, annotation) for name, annotation in own.items()]
    names = [name for name in ExperimentConfig.setting_names() if name not in own]
    options += [_setting(name) for name in sorted(names, key=lambda name: _panel(name) in _GROUPS)]
    hidden = Annotated[str | None, typer.Option(hidden=True)]
    options += [_option(former, hidden) for former in ExperimentConfig.former_names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        command.__annotations__ = {option.name: option.annotation for option in options}
        return command

    return decorate


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given as options, as the configuration reads them."""
    return {
        ExperimentConfig.former_names.get(name, name): (
            " ".join(value) if isinstance(value, list) else value
        )
        for name, value in settings.items()
        if value is not None and value != []
    }


def at_home_if_given(path: Path | None) -> Path | None:
    """Return a path with the home folder for ``~``; None where none is given."""
    return None if path is None else at_home(path)


def _setting(name: str) -> inspect.Parameter:
    field = ExperimentConfig.model_fields[name]
    choices = list(METHODS) if name == "method" else _choices(field.annotation)
    text = f"{field.description} ({', '.join(choices)})." if choices else f"{field.description}."
    if not field.is_required() and field.default is not None:
        text += default_in_help(field.default)
    kind = _parsed_as(field.annotation) | None
    return _option(name, Annotated[kind, typer.Option(help=text, rich_help_panel=_panel(name))])


def default_in_help(value: object) -> str:
    """Return how an option's help tells its default, where the option itself has none."""
    shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
    return f" [dim]\\[default: {shown}][/]"


def _choices(annotation: Any) -> list[str]:
    return [value for value in get_args(annotation) if isinstance(value, str)]


def _panel(name: str) -> str:
    """Return the heading that a setting stands under."""
    found = (heading for heading, group in _GROUPS.items() if name in group.model_fields)
    return next(found, "Experiment")


def _option(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _parsed_as(annotation: Any) -> Any:
    """Return what the command line parses a setting as; the configuration checks the value."""
    kinds = [annotation]
    for kind in kinds:  # of optional, annotated, listed types too
        kinds += get_args(kind)
    if any(get_origin(kind) is list for kind in kinds):
        return list[str]
    return next((kind for kind in kinds if kind in (bool, int, float)), str)
