"""Composing a configuration from a preset, a YAML file and single settings; later ones win."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from iirc_train.config.auto_preset import AUTO_PRESET, auto_preset
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.network import ALTERNATIVES
from iirc_train.config.own_settings import (
    MethodConfigs,
    check_method,
    complete,
    methods_with,
    own_names,
)
from iirc_train.config.plain_yaml import read_settings
from iirc_train.config.preset_files import preset_file

_IN_TOTAL = -1  # of n_memories_per_class: total_n_mems is the size

_LR_ALTERNATIVES = {
    "lr_schedule": {"lr_cosine", "reduce_lr_on_plateau"},
    "lr_cosine": {"lr_schedule", "reduce_lr_on_plateau"},
    "reduce_lr_on_plateau": {"lr_schedule", "lr_cosine", "lr_warmup"},
    "lr_warmup": {"reduce_lr_on_plateau"},
}
"""What moves the learning rate, to what of an earlier source it replaces."""


def compose(
    preset: str | None = None,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    methods: MethodConfigs | None = None,
    also_for: Collection[str] = (),
) -> ExperimentConfig:
    """Compose a configuration.

    A preset or file may name one method and a later source another. The settings that only the
    first method has are then dropped. A file's settings of another method are also dropped if they
    have their default values, because earlier releases wrote the settings of all methods into
    every ``config.yaml``. A source with ``epochs_per_task`` also resets ``first_task_epochs``, and
    one that moves the learning rate in another way, such as ``lr_schedule`` instead of
    ``reduce_lr_on_plateau``, replaces the earlier way.

    Args:
        preset: Name of a preset, or ``"auto"``; see :func:`resolved_preset`.
        file: YAML file; its settings override the preset's.
        overrides: Settings that override both.
        methods: Name of each method to the class of its settings; None composes only the settings
            that all methods have.
        also_for: Other methods that receive the same settings. A setting that only they have is
            dropped.

    Raises:
        ConfigurationError: The preset or method does not exist, the file is not readable, the name
            or value of a setting is wrong (the message names its preset or file), or a required
            setting is missing.
    """
    layers = list(_layers(preset, file, overrides or {}))
    classes = methods or {}
    method = _last(layers, "method")
    if methods is not None and isinstance(method, str):
        check_method(method, methods)
    own = {name for config in classes.values() for name in own_names(config)}
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in layers:
        kept = dict(values)
        for name in own.intersection(values):
            others = methods_with(name, classes)
            if method not in others and (
                not others.isdisjoint(also_for)
                or (source and values.get("method") in others)
                or (source and _is_default(values[name], name, classes))
            ):
                del kept[name]
        named = ExperimentConfig.checked_names(kept, source, own)
        settings = without_replaced(settings, named) | named
        sources |= dict.fromkeys(named, source)
    config = ExperimentConfig.parse(settings, sources, own)
    return config if methods is None else complete(config, methods, sources)


def resolved_preset(
    preset: str | None, file: Path | None, overrides: Mapping[str, Any]
) -> str | None:
    """Return the name of the preset: for ``"auto"``, the one that the other sources choose.

    Raises:
        ConfigurationError: No preset fits, or the file is not readable.
    """
    if preset != AUTO_PRESET:
        return preset
    return auto_preset([*([] if file is None else [read_settings(file)]), overrides])


def method_of(preset: str | None, file: Path | None, overrides: Mapping[str, Any]) -> object:
    """Return the method that these sources name, or None; see :func:`compose`.

    Raises:
        ConfigurationError: The preset does not exist, or the file is not readable.
    """
    return _last(_layers(preset, file, overrides), "method")


def _layers(
    preset: str | None, file: Path | None, overrides: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    name = resolved_preset(preset, file, overrides)
    if name is not None:
        yield f"preset {name}", read_settings(preset_file(name))
    if file is not None:
        yield str(file), read_settings(file)
    yield "", overrides


def without_replaced(earlier: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of earlier sources without those that a later one contradicts."""
    replaced: set[str] = set()
    if not named.keys().isdisjoint(ALTERNATIVES):
        replaced |= ALTERNATIVES
    if "epochs_per_task" in named:
        replaced.add("first_task_epochs")  # went with the epochs of the source before
    if _value("optimizer", named, "sgd") != "sgd":
        replaced |= {"momentum", "nesterov"}
    for name, others in _LR_ALTERNATIVES.items():
        if _value(name, named):
            replaced |= others
    if _value("n_memories_per_class", named, _IN_TOTAL) != _IN_TOTAL:
        replaced.add("total_n_mems")
    return {name: value for name, value in earlier.items() if name not in replaced}


def _value(name: str, named: Mapping[str, Any], default: Any = None) -> Any:
    """Return what the text or value of a setting means; the default if it is missing or wrong."""
    if name not in named:
        return default
    annotation: Any = ExperimentConfig.model_fields[name].rebuild_annotation()
    try:
        return TypeAdapter(annotation).validate_python(named[name])
    except ValidationError:  # reported when all settings are parsed
        return default


def _last(layers: Iterable[tuple[str, Mapping[str, Any]]], name: str) -> object:
    found = [values[name] for _, values in layers if name in values]
    return found[-1] if found else None


def _is_default(value: Any, name: str, methods: MethodConfigs) -> bool:
    return any(methods[m].model_fields[name].default == value for m in methods_with(name, methods))
