"""Checks of a benchmark against a dataset: its classes exist and have images."""

import warnings
from collections.abc import Sequence
from typing import Protocol

from iirc_data.benchmarks import Benchmark
from iirc_data.definitions import TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.shards.manifest import Manifest
from iirc_data.spelling import with_known_spelling
from iirc_data.splits import split_folder


class NamedClasses(Protocol):
    """The name of a dataset and those of its leaf classes, for example a manifest."""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the leaf classes."""


def needed_classes(benchmark: Benchmark, tasks: Sequence[Sequence[str]]) -> set[str]:
    """Return the leaf classes whose images tasks use.

    A superclass uses images of all its subclasses, scheduled or not.
    """
    named = {name for task in tasks for name in task}
    return {
        leaf for leaf in benchmark.leaf_classes if not named.isdisjoint(benchmark.labels_of(leaf))
    }


def check_classes(
    benchmark: Benchmark, dataset: NamedClasses, tasks: Sequence[Sequence[str]]
) -> None:
    """Check that a dataset has the classes of a schedule.

    Sampling of a superclass counts all of its subclasses, so unscheduled subclasses must exist too.

    Raises:
        BenchmarkError: Classes are missing; the message names them.
    """
    if missing := sorted(needed_classes(benchmark, tasks) - set(dataset.classes)):
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} needs {len(missing)} classes that dataset "
            f"{dataset.dataset!r} does not have: {with_known_spelling(missing, dataset.classes)}"
        )
    task_of: dict[str, int] = {}
    for number, task in enumerate(tasks):
        for name in task:
            task_of.setdefault(name, number)
    early = [
        leaf
        for leaf, superclass in benchmark.superclass_of.items()
        if leaf in task_of and superclass in task_of and task_of[leaf] < task_of[superclass]
    ]
    if early:
        warnings.warn(
            f"benchmark {benchmark.name!r} schedules subclasses before their superclass: "
            f"{', '.join(early[:5])}",
            stacklevel=2,
        )


def classes_without_images(
    benchmark: Benchmark, manifest: Manifest, tasks: Sequence[Sequence[str]], split: SplitName
) -> list[str]:
    """Return, sorted, the leaf classes of tasks that have no image in a split's folder.

    A class with images in the training folder always has images to train on, because the division
    into training and validation leaves at least one.

    Raises:
        BenchmarkError: The dataset lacks the split's folder.
    """
    folder = split_folder(list(manifest.splits), manifest.dataset, split)
    there = {shard.class_name for shard in manifest.splits[folder]}
    return sorted(needed_classes(benchmark, tasks) - there)


def check_images(benchmark: Benchmark, manifest: Manifest, tasks: Sequence[Sequence[str]]) -> None:
    """Check that every class has training images and every task has test images.

    A class without a test image causes a warning.

    Args:
        benchmark: The benchmark.
        manifest: The dataset's manifest.
        tasks: The names of each task's classes.

    Raises:
        BenchmarkError: A class has no training image, or a task no test image.
    """
    if missing := classes_without_images(benchmark, manifest, tasks, TRAIN):
        raise BenchmarkError(
            f"dataset {manifest.dataset!r} has no training image of {len(missing)} classes: "
            f"{with_known_spelling(missing, manifest.classes)}"
        )
    missing = classes_without_images(benchmark, manifest, tasks, TEST)
    for number, task in enumerate(tasks):
        needed = needed_classes(benchmark, [task])
        if needed and needed <= set(missing):
            raise BenchmarkError(
                f"the dataset has no test image of task {number} "
                f"({with_known_spelling(task, manifest.classes)})"
            )
    if missing:
        names = with_known_spelling(missing, manifest.classes)
        warnings.warn(
            f"dataset {manifest.dataset!r} has no test image of {len(missing)} classes, which "
            f"count in no result: {names}",
            stacklevel=2,
        )
