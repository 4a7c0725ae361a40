"""Settings that only some methods have: which they are, and how they are checked.

This package may not import the methods, so the functions take a mapping of each method's name to
the class of its settings.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig, MethodConfig
from iirc_train.config.settings import nearest_name

MethodConfigs = Mapping[str, type[MethodConfig]]


def own_names(config: type[MethodConfig]) -> list[str]:
    """Return the names of the settings that a method adds to the common ones."""
    return [name for name in config.setting_names() if name not in MethodConfig.model_fields]


def methods_with(name: str, methods: MethodConfigs) -> set[str]:
    """Return the methods that add a setting of this name to the common ones."""
    return {method for method, config in methods.items() if name in own_names(config)}


def check_method(name: str, methods: Iterable[str]) -> None:
    """Check that a method exists.

    Raises:
        ConfigurationError: It does not; the message names the nearest one.
    """
    known = list(methods)
    if name not in known:
        raise ConfigurationError(
            f"there is no method {name!r}: choose {', '.join(known)}{nearest_name(name, known)}"
        )


def check_names(method: str, config: type[MethodConfig]) -> None:
    """Check that no setting that a method adds has a name that is taken.

    Raises:
        ConfigurationError: The name is that of a common setting, or of an attribute of
            :class:`ExperimentConfig`.
    """
    for name in own_names(config):
        taken = {*ExperimentConfig.model_fields, *ExperimentConfig.published_names}
        if name in taken or hasattr(ExperimentConfig, name):
            raise ConfigurationError(
                f"method {method!r} adds a setting {name!r}, but every configuration already has "
                "that name: rename the setting in the method's class Config"
            )


def complete(
    config: ExperimentConfig, methods: MethodConfigs, sources: Mapping[str, str] | None = None
) -> ExperimentConfig:
    """Check the settings that the configuration's method adds, and fill in their defaults.

    Args:
        config: A configuration whose method is one of ``methods``.
        methods: Name of each method to the class of its settings.
        sources: Name of each setting to its origin, for error messages.

    Raises:
        ConfigurationError: A value is wrong, a required setting is missing, or the method does not
            have a setting; the message names the methods that have it.
    """
    method = methods[config.method]
    check_names(config.method, method)
    check_known(config.method, config.model_extra or {}, methods, sources)
    given = {k: v for k, v in config.values().items() if k in config.model_fields_set}
    names = {*method.setting_names()} - {*ExperimentConfig.published_names}
    settings = method.parse({k: v for k, v in given.items() if k in names}, sources)
    found = {k: v for k, v in settings.values().items() if k in names}
    return ExperimentConfig.parse({**given, **found}, sources, own=own_names(method))


def check_known(
    method: str,
    names: Collection[str],
    methods: MethodConfigs,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Check that a method has all settings of these names.

    Raises:
        ConfigurationError: A setting is missing; the message names the methods that have it, or
            the nearest name.
    """
    known = {*ExperimentConfig.model_fields, *own_names(methods[method])}
    for name in names:
        if name in known:
            continue
        source = (sources or {}).get(name)
        where = f"{source}: " if source else ""
        if others := methods_with(name, methods):
            raise ConfigurationError(
                f"{where}{name!r} is a setting of {', '.join(sorted(others))}; "
                f"the method {method} does not have it"
            )
        raise ConfigurationError(
            f"{where}there is no setting {name!r}{nearest_name(str(name), known)}"
        )


def without_settings_of_others(
    method: str, settings: Mapping[str, Any], methods: MethodConfigs
) -> dict[str, Any]:
    """Return the settings of a run, without those that only other methods have.

    Earlier releases wrote the settings of all methods into every run, where they had no effect.
    """
    if method not in methods:
        return dict(settings)
    known = {*ExperimentConfig.model_fields, *own_names(methods[method])}
    return {
        name: value
        for name, value in settings.items()
        if name in known or not methods_with(name, methods)
    }
