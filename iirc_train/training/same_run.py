"""Whether a folder holds a run that other settings mean too, and what to go on with then."""

from pathlib import Path
from typing import Any

from iirc_data.benchmarks import load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_data.shards import ShardStore
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.places import is_same_benchmark, is_same_data
from iirc_train.methods.settings import checked_settings, settings_of_run
from iirc_train.run.directory import RECORD_NAME, RunDirectory
from iirc_train.training.components import task_sequences
from iirc_train.training.provenance import check_same_data, describe_data, read_record


def changes_to(folder: Path, config: ExperimentConfig) -> dict[str, Any]:
    """Compare the run in a folder with settings for it.

    Args:
        folder: The run's folder.
        config: The settings.

    Returns:
        The free settings that are given and differ from the run's: places and the machine.

    Raises:
        ConfigurationError: The run has other settings, or saw other data than the settings name.
        IIRCError: There is no such data or benchmark.
    """
    begun = settings_of_run(RunDirectory.open(folder)[1])
    config = checked_settings(config)
    before, now = begun.values(), config.values()
    different = [name for name in now if name not in before or before[name] != now[name]]
    free = ExperimentConfig.free_settings()
    if changed := [name for name in different if name not in free]:
        said = "; ".join(f"{name} was {before.get(name)}, is {now[name]} now" for name in changed)
        raise ConfigurationError(
            f"{folder} holds a run with other settings: {said}; give another --output, or remove "
            "the folder"
        )
    changes = {name: now[name] for name in different if now[name] is not None}
    if "data" in changes and is_same_data(begun.data, config.data):
        del changes["data"]
    if "benchmark" in changes and is_same_benchmark(begun.benchmark, config.benchmark):
        del changes["benchmark"]
    if changes.keys() & {"data", "benchmark"} and (folder / RECORD_NAME).exists():
        store = ShardStore.open(config.data)
        splits = task_sequences(config, load_benchmark(config.benchmark), store)
        try:
            check_same_data(read_record(folder), describe_data(store, splits))
        except ConfigurationError as error:
            raise ConfigurationError(f"{folder} holds a run with other data: {error}") from error
    return changes
