"""Configurations of runs, including the settings that only their method has."""

from collections.abc import Container
from typing import Any

from iirc_data.definitions import Setup
from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig, MethodConfig
from iirc_train.config.own_settings import (
    check_method,
    complete,
    own_names,
    without_settings_of_others,
)
from iirc_train.config.setup import with_setup
from iirc_train.methods import METHODS, get_method


def method_configs() -> dict[str, type[MethodConfig]]:
    """Return the name of each method, and the class of its settings."""
    return {name: parts.config for name, parts in METHODS.items()}


def experiment_config(**settings: Any) -> ExperimentConfig:
    """Return the configuration of a run, checked for its method.

    For example::

        config = experiment_config(
            benchmark="iirc_cifar100", data="shards", method="lucir", lucir_lambda=3.0
        )

    Args:
        **settings: Settings by name; published names work too.

    Raises:
        ConfigurationError: The name or value of a setting is wrong, or a required setting is
            missing; the message names it.
    """
    methods = method_configs()
    own = {name for config in methods.values() for name in own_names(config)}
    return checked_settings(ExperimentConfig.parse(settings, own=own))


def checked_settings(config: ExperimentConfig) -> ExperimentConfig:
    """Check the settings that the configuration's method adds, and fill in their defaults.

    Raises:
        ConfigurationError: The method does not exist, it does not have a setting, a value is
            wrong, or it has no thresholds to calibrate.
    """
    check_method(config.method, METHODS)
    METHODS[config.method].model.check_calibration(config, config.method)
    return complete(config, method_configs())


def settings_for(config: ExperimentConfig, setup: Setup) -> ExperimentConfig:
    """Check settings as a run does, and resolve those that a benchmark's setup decides.

    Raises:
        ConfigurationError: See :func:`checked_settings` and
            :func:`~iirc_train.config.setup.with_setup`.
    """
    config = checked_settings(config)
    return with_setup(config, setup, METHODS[config.method].model.losses, config.method)


def check_has_effect(config: ExperimentConfig, among: Container[str] | None = None) -> None:
    """Check that the settings of replay have an effect on the method of a new run.

    Earlier releases accepted them, so runs that exist are not checked.

    Args:
        config: The run's configuration.
        among: Names of the settings to check; None checks all.

    Raises:
        ConfigurationError: The method does not exist, or a setting has no effect on it.
    """
    parts = get_method(config.method)
    without_effect: dict[str, str] = {}
    if not parts.model.replay_in_batches:
        without_effect["buffer_sampling_multiplier"] = "which mixes no memories into its batches"
    if not parts.buffer.has_pool:
        without_effect["max_mems_pool_per_class"] = "whose buffer does not choose within a class"
    for name, reason in without_effect.items():
        value, default = getattr(config, name), ExperimentConfig.model_fields[name].default
        if value != default and (among is None or name in among):
            raise ConfigurationError(
                f"{name} {value:g} has no effect on method {config.method}, {reason}: leave it "
                f"out, or set it to {default:g}, the default"
            )


def settings_of_run(config: ExperimentConfig) -> ExperimentConfig:
    """Return a configuration that was read from a run's folder as this release would write it.

    Settings of other methods are dropped; earlier releases wrote them too. If the method is not
    registered, all settings are kept.

    Raises:
        ConfigurationError: The value of a setting that the method adds is wrong.
    """
    if config.method not in METHODS:
        return config
    methods = method_configs()
    settings = without_settings_of_others(config.method, config.values(), methods)
    return complete(ExperimentConfig.parse(settings, own=settings), methods)
