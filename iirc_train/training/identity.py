"""What makes two sessions parts of one run: tasks, transforms and settings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from iirc_data.augment import TransformPreset
from iirc_data.benchmarks import Benchmark
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_sequence import TaskSequence
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.own_settings import without_settings_of_others
from iirc_train.config.setup import with_former_defaults
from iirc_train.methods import get_method
from iirc_train.methods.settings import method_configs

SPLITS: tuple[SplitName, ...] = (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)


def task_sequences(
    config: ExperimentConfig, benchmark: Benchmark, store: SampleStore
) -> dict[SplitName, TaskSequence]:
    """Return the tasks of each split as the configuration defines them."""
    return {
        split: TaskSequence.from_store(
            benchmark,
            store,
            split,
            schedule=config.schedule,
            joint=config.joint,
            complete_information=(
                config.complete_information if split in (TRAIN, INTASK_VALID) else None
            ),
            samples_per_class=config.samples_per_class if split == TRAIN else None,
        )
        for split in SPLITS
    }


def shown_transforms(transforms: TransformPreset, *, augment: bool) -> TransformPreset:
    """Return the transforms of a dataset, those for training as the setting ``augment`` says."""
    return transforms if augment else replace(transforms, train=transforms.evaluate)


def transforms_as_written(benchmark: Benchmark) -> Any:
    """Return the image preset of a benchmark, or of each of its datasets, as plain values."""
    if not benchmark.datasets:
        return benchmark.model_dump(mode="json", include={"transforms"})["transforms"]
    presets = benchmark.image_presets.items()
    return {name: preset.model_dump(mode="json") for name, preset in presets}


def saved_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings that a checkpoint holds.

    Those that define the run are compared when it is resumed. Earlier releases compare most of the
    others, so those remain in it.
    """
    elsewhere = ("benchmark", "data", "device", "resident")
    return {name: value for name, value in config.values().items() if name not in elsewhere}


def defining_settings(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the settings that define a run, with defaults for those it was saved without."""
    free = ExperimentConfig.free_settings()
    named = {ExperimentConfig.published_names.get(k, k): value for k, value in settings.items()}
    named = with_former_defaults(named)
    named = without_settings_of_others(method, named, method_configs())
    for group in (get_method(method).config, ExperimentConfig):
        fields = group.model_fields
        named = {name: fields[name].default for name in group.setting_names()} | named
    return {name: value for name, value in named.items() if name not in free}


def shown_difference(value: Any, other: Any) -> str:
    """Return a value as text; of two dictionaries only the items that differ."""
    if isinstance(value, dict) and isinstance(other, dict):
        return ", ".join(
            f"{k}: {value[k]}" for k in value if k not in other or other[k] != value[k]
        )
    return str(value)
