"""An option for every setting of a run, so that each is documented once."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import typer

from iirc_train.config import ExperimentConfig


def with_settings(own: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options of its own, followed by one for each setting that they leave.

    Args:
        own: Annotated type of each of the command's own options. Those that are not given are
            None.

    Returns:
        A decorator for the command's function, which takes all of them by name.
    """
    options = [_option(name, annotation) for name, annotation in own.items()]
    options += [_setting(name) for name in ExperimentConfig.setting_names() if name not in own]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        command.__annotations__ = {option.name: option.annotation for option in options}
        return command

    return decorate


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given as options, as the configuration reads them."""
    return {
        name: " ".join(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if value is not None and value != []
    }


def _setting(name: str) -> inspect.Parameter:
    field = ExperimentConfig.model_fields[name]
    shown: Any = False if field.is_required() or field.default is None else str(field.default)
    choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
    text = f"{field.description} ({', '.join(choices)})." if choices else f"{field.description}."
    kind = _parsed_as(field.annotation) | None
    return _option(name, Annotated[kind, typer.Option(help=text, show_default=shown)])


def _option(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _parsed_as(annotation: Any) -> Any:
    """Return what the command line parses a setting as; the configuration checks the value."""
    kinds = (*get_args(annotation), annotation)
    if any(get_origin(kind) is list for kind in kinds):
        return list[str]
    return next((kind for kind in kinds if kind in (bool, int, float)), str)
