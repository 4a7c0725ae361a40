"""Comparing the run in a folder with settings: same run or not, and what to resume it with."""

from pathlib import Path
from typing import Any

from iirc_data.benchmarks import load_benchmark
from iirc_data.datasets import open_datasets
from iirc_data.errors import BenchmarkError, ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.image_preset import benchmark_as_shown
from iirc_train.config.network import ALTERNATIVES, image_size, with_named_network
from iirc_train.config.places import is_same_benchmark, is_same_data
from iirc_train.config.setup import with_setup
from iirc_train.methods import METHODS, get_method
from iirc_train.methods.settings import checked_settings, settings_of_run
from iirc_train.run.directory import RECORD_NAME, RunDirectory
from iirc_train.run.record import SeenData, check_same_data, read_record
from iirc_train.training.identity import task_sequences


def changes_to(folder: Path, config: ExperimentConfig) -> dict[str, Any]:
    """Compare the run in a folder with settings for it.

    Args:
        folder: The run's folder.
        config: The settings.

    Returns:
        The settings to resume the run with: places and machine settings that differ from its own.

    Raises:
        ConfigurationError: The run has other settings, or was trained on other data.
        IIRCError: The data or the benchmark does not exist.
    """
    saved = settings_of_run(RunDirectory.open(folder)[1])
    saved, config = _with_setup(saved, checked_settings(config))
    before, now = saved.values(), config.values()
    if any(before[name] != now[name] for name in ALTERNATIVES):
        before, now = (
            with_named_network(
                values, image_size(benchmark_as_shown(config.benchmark, values["image_preset"]))
            )
            for values in (before, now)
        )
    different = [name for name in now if name not in before or before[name] != now[name]]
    free = ExperimentConfig.free_settings()
    if changed := [name for name in different if name not in free]:
        said = "; ".join(f"{name} was {before.get(name)}, is {now[name]} now" for name in changed)
        raise ConfigurationError(
            f"{folder} holds a run with other settings: {said}; give another --output, or remove "
            "the folder"
        )
    changes = {name: now[name] for name in different if now[name] is not None}
    if "data" in changes and is_same_data(saved.data, config.data):
        del changes["data"]
    if "benchmark" in changes and is_same_benchmark(saved.benchmark, config.benchmark):
        del changes["benchmark"]
    if changes.keys() & {"data", "benchmark"} and (folder / RECORD_NAME).exists():
        benchmark = load_benchmark(config.benchmark)
        store = open_datasets(benchmark, config.data, cache_size=config.cache_size)
        splits = task_sequences(config, benchmark, store)
        try:
            check_same_data(read_record(folder), SeenData.of(store, splits))
        except ConfigurationError as error:
            raise ConfigurationError(f"{folder} holds a run with other data: {error}") from error
    return changes


def _with_setup(
    saved: ExperimentConfig, config: ExperimentConfig
) -> tuple[ExperimentConfig, ExperimentConfig]:
    """Return the settings of a run and those to compare with as :func:`with_setup` resolves them.

    A finished run no longer needs its benchmark. Without it, open settings are those of the run.
    """
    try:
        setup = load_benchmark(config.benchmark).setup
    except BenchmarkError:
        is_open = {"loss": "auto", "decision": "auto", "first_task_epochs": None}
        names = [name for name, value in is_open.items() if getattr(config, name) == value]
        return saved, config.model_copy(update={name: getattr(saved, name) for name in names})
    resolved = [
        with_setup(each, setup, get_method(each.method).model.losses, each.method)
        if each.method in METHODS
        else each
        for each in (saved, config)
    ]
    return resolved[0], resolved[1]
