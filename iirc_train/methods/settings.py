"""Configurations with the settings of their method's own."""

from typing import Any

from iirc_train.config.experiment import ExperimentConfig, MethodConfig
from iirc_train.config.own_settings import (
    check_method,
    complete,
    own_names,
    without_settings_of_others,
)
from iirc_train.methods import METHODS


def method_configs() -> dict[str, type[MethodConfig]]:
    """Return the class of each method's settings, by the method's name."""
    return {name: parts.config for name, parts in METHODS.items()}


def experiment_config(**settings: Any) -> ExperimentConfig:
    """Return the configuration of a run, including the settings of its method.

    For example::

        config = experiment_config(
            benchmark="iirc_cifar100", data="shards", method="lucir", lucir_lambda=3.0
        )

    Args:
        **settings: Settings, by their names here or their published names.

    Raises:
        ConfigurationError: A setting's name or value is wrong, or a required one is missing; the
            message names it.
    """
    methods = method_configs()
    own = {name for config in methods.values() for name in own_names(config)}
    return checked_settings(ExperimentConfig.parse(settings, own=own))


def checked_settings(config: ExperimentConfig) -> ExperimentConfig:
    """Check the settings of a configuration's method's own, and add the defaults of the others.

    Raises:
        ConfigurationError: There is no such method, it has no such setting, or a value is wrong.
    """
    check_method(config.method, METHODS)
    return complete(config, method_configs())


def settings_of_run(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration that was read from a run's folder, as this release would write it.

    Settings of other methods, which earlier releases wrote too, are left out. A run of a method
    that is not registered here keeps all of its settings.

    Raises:
        ConfigurationError: A value of a setting of the method's own is wrong.
    """
    if config.method not in METHODS:
        return config
    methods = method_configs()
    settings = without_settings_of_others(config.method, config.values(), methods)
    return complete(ExperimentConfig.parse(settings, own=settings), methods)
