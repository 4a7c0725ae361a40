"""Checks that the tasks of a run have the samples, labels and image sizes that it needs."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment import TransformPreset
from iirc_data.augment.network_images import NetworkImages
from iirc_data.benchmarks import Benchmark
from iirc_data.dataset_checks import check_images_of_parts
from iirc_data.datasets import parts_of
from iirc_data.definitions import (
    INTASK_VALID,
    NO_LABEL,
    POSTTASK_VALID,
    TEST,
    TRAIN,
    SplitName,
)
from iirc_data.errors import ConfigurationError
from iirc_data.image_sizes import check_sizes_of_datasets
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_sequence import TaskSequence
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.methods import get_method
from iirc_train.methods.base_method import BaseMethod
from iirc_train.runtime.distributed import world_size
from iirc_train.runtime.notes import logger


def check_views(
    config: ExperimentConfig,
    benchmark: Benchmark,
    store: SampleStore,
    splits: Mapping[SplitName, TaskSequence],
) -> None:
    """Check that the tasks have the samples and the labels that a run needs.

    Raises:
        ConfigurationError: A task has too few samples, a sample has more labels than the loss
            takes, or the method must not see samples again.
        BenchmarkError: The dataset lacks images of a class.
    """
    if config.incremental_joint and get_method(config.method).model.learns_by_statistics:
        raise ConfigurationError(
            f"method {config.method} counts each sample it is shown, and incremental_joint shows "
            "those of earlier tasks again: use --joint, which has one task, or another method"
        )
    manifests = {name: store.manifest for name, store in store.datasets.items()}
    parts = parts_of(benchmark, manifests)
    check_images_of_parts(benchmark, parts, splits[TRAIN].tasks)
    by_validation = [
        name for name in ("use_best_model", "reduce_lr_on_plateau") if getattr(config, name)
    ]
    for task_id, task in enumerate(splits[TRAIN].tasks):
        name = f"task {task_id} ({', '.join(task)})"
        n_samples = len(splits[TRAIN].view(task_id))
        if n_samples < world_size():
            raise ConfigurationError(
                f"{name} has {n_samples} training samples for {world_size()} process(es): "
                "use more samples per class, or another benchmark"
            )
        if config.loss == "ce":
            _check_single_labels(config.method, store, splits, TRAIN, task_id)
            _check_single_labels(config.method, store, splits, INTASK_VALID, task_id)
        shown = range(task_id + 1) if config.incremental_joint else task_id
        if by_validation and not len(splits[INTASK_VALID].view(shown)):
            raise ConfigurationError(
                f"{by_validation[0]} needs in-task validation samples, and {name} has none: "
                "raise the benchmark's intask_valid_ratio"
            )

    if config.loss == "ce":
        everything = range(len(splits[TRAIN]))
        for split in (POSTTASK_VALID, TEST):
            _check_single_labels(config.method, store, splits, split, everything)


def _check_single_labels(
    method: str,
    store: SampleStore,
    splits: Mapping[SplitName, TaskSequence],
    split: SplitName,
    tasks: int | range,
) -> None:
    view = splits[split].view(tasks)
    several = np.flatnonzero((view.labels[:, 1:] != NO_LABEL).any(axis=1))
    if len(several):
        first = int(several[0])
        names = [view.class_names[label] for label in view.labels[first] if label != NO_LABEL]
        losses = get_method(method).model.losses
        raise ConfigurationError(
            f"loss ce needs samples with one label, but {split} shows "
            f"{store.name(int(view.sample_ids[first]))} with {' and '.join(names)}: "
            + (
                "use --loss bce"
                if "bce" in losses
                else f"{method} has no other loss, so choose another method"
            )
        )


def check_stages(config: ExperimentConfig, method: BaseMethod, n_tasks: int) -> None:
    """Check that ``incremental_joint`` meets no choice among the samples of a task.

    Such a choice numbers the samples that a task introduces, not all that the epochs show.

    Raises:
        ConfigurationError: The method makes one.
    """
    if not config.incremental_joint:
        return
    stages = (stage for task_id in range(n_tasks) for stage in method.stages_of_task(task_id))
    found = [f"stage {stage.name}" for stage in stages if stage.is_choice]
    if not found and type(method).choose_samples is not BaseMethod.choose_samples:
        found = ["choose_samples"]
    if found:
        raise ConfigurationError(
            f"{found[0]} of method {config.method} chooses among the samples of its task, and "
            "incremental_joint shows those of earlier tasks too: use --joint, which has one task, "
            "or another method"
        )


def check_image_sizes(
    transforms: Mapping[str, TransformPreset],
    store: SampleStore,
    splits: Mapping[SplitName, TaskSequence],
) -> None:
    """Check that every image can be shown as the image presets say.

    Raises:
        ConfigurationError: An image is too small, or the images have several sizes.
    """
    everything = range(len(splits[TRAIN]))
    shown: dict[str, dict[str, NDArray[np.int64]]] = {name: {} for name in store.datasets}
    for split, tasks in splits.items():
        rows = tasks.view(everything).sample_ids
        numbers = store.dataset_numbers(rows)
        for number, name in enumerate(shown):
            shown[name][split] = rows[numbers == number]
    check_sizes_of_datasets(
        transforms,
        {
            name: {split: store.sizes(rows) for split, rows in of_splits.items()}
            for name, of_splits in shown.items()
        },
        lambda name, split, number: store.name(int(shown[name][split][number])),
    )


def note_other_images(benchmark: Benchmark, network: str, expected: NetworkImages) -> None:
    """Log where images are shown otherwise than a network's pretrained weights expect them.

    Args:
        benchmark: The benchmark, with the image presets of the run.
        network: Name of the network.
        expected: What its weights expect.
    """
    for preset in benchmark.image_presets.values():
        if (preset.size, preset.mean, preset.std) != (expected.size, expected.mean, expected.std):
            logger.warning(
                "note: the weights of %s expect images of %d pixels with mean %s and std %s, but "
                "the settings show %s pixels, mean %s, std %s: --image-preset auto follows the "
                "network",
                network,
                expected.size,
                *(_rounded(values) for values in (expected.mean, expected.std)),
                preset.size or "their own number of",
                *(_rounded(values) for values in (preset.mean, preset.std)),
            )
            return


def _rounded(values: tuple[float, float, float]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
