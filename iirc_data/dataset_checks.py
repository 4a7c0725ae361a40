"""Checks of a benchmark against a dataset: its classes exist and have images."""

from collections.abc import Sequence
from typing import Protocol

from iirc_data.benchmarks import Benchmark
from iirc_data.datasets import DatasetPart, parts_of
from iirc_data.definitions import TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.shards.manifest import Manifest
from iirc_data.spelling import with_known_spelling
from iirc_data.splits import split_folder
from iirc_data.warning import warn


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

    A superclass uses images of all leaf classes below it, scheduled or not.
    """
    named = {name for task in tasks for name in task}
    taxonomy = benchmark.taxonomy
    return {
        leaf for leaf in taxonomy.leaf_classes if not named.isdisjoint(taxonomy.labels_of(leaf))
    }


def check_classes(
    benchmark: Benchmark, dataset: NamedClasses, tasks: Sequence[Sequence[str]]
) -> None:
    """Check that a dataset has the classes of a schedule.

    Sampling of a superclass counts all leaf classes below it, so unscheduled ones must exist too.

    Raises:
        BenchmarkError: Classes are missing; the message names them.
    """
    _check_has(benchmark, dataset, needed_classes(benchmark, tasks))
    _warn_of_early_subclasses(benchmark, tasks)


def check_classes_of_parts(
    benchmark: Benchmark, parts: Sequence[DatasetPart], tasks: Sequence[Sequence[str]]
) -> None:
    """Check that the datasets of a benchmark have the classes of a schedule.

    See :func:`check_classes`.

    Raises:
        BenchmarkError: Classes are missing; the message names them and their dataset.
    """
    needed = needed_classes(benchmark, tasks)
    for part in parts:
        own = {name for name, leaf in part.leaf_of.items() if leaf in needed}
        _check_has(benchmark, part.manifest, own)
    _warn_of_early_subclasses(benchmark, tasks)


def _check_has(benchmark: Benchmark, dataset: NamedClasses, needed: set[str]) -> None:
    if missing := sorted(needed - set(dataset.classes)):
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} needs {len(missing)} classes that dataset "
            f"{dataset.dataset!r} does not have: {with_known_spelling(missing, dataset.classes)}"
        )


def _warn_of_early_subclasses(benchmark: Benchmark, tasks: Sequence[Sequence[str]]) -> None:
    task_of: dict[str, int] = {}
    for number, task in enumerate(tasks):
        for name in task:
            task_of.setdefault(name, number)
    # a class that no superclass comes after cannot be early, and few others are left to look at
    latest = max((task_of.get(name, 0) for name in benchmark.superclasses), default=0)
    subclasses = (name for names in benchmark.superclasses.values() for name in names)
    candidates = dict.fromkeys(name for name in subclasses if task_of.get(name, latest) < latest)
    ancestors_of = benchmark.taxonomy.ancestors_of
    early = [
        name
        for name in candidates
        if any(task_of[name] < task_of.get(ancestor, 0) for ancestor in ancestors_of(name))
    ]
    if early:
        warn(
            f"benchmark {benchmark.name!r} schedules subclasses before their superclass: "
            f"{', '.join(early[:5])}",
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
    return _without_images(
        benchmark, parts_of(benchmark, {manifest.dataset: manifest}), tasks, split
    )


def _without_images(
    benchmark: Benchmark,
    parts: Sequence[DatasetPart],
    tasks: Sequence[Sequence[str]],
    split: SplitName,
) -> list[str]:
    there: set[str] = set()
    for part in parts:
        folder = split_folder(list(part.manifest.splits), part.manifest.dataset, split)
        names = {shard.class_name for shard in part.manifest.splits[folder]}
        there |= {part.leaf_of[name] for name in names if name in part.leaf_of}
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
    check_images_of_parts(benchmark, parts_of(benchmark, {manifest.dataset: manifest}), tasks)


def check_images_of_parts(
    benchmark: Benchmark, parts: Sequence[DatasetPart], tasks: Sequence[Sequence[str]]
) -> None:
    """Check that the datasets of a benchmark have images; see :func:`check_images`.

    Raises:
        BenchmarkError: A class has no training image, or a task no test image.
    """
    names = [repr(part.manifest.dataset) for part in parts]
    data = f"dataset {names[0]} has" if len(names) == 1 else f"datasets {', '.join(names)} have"
    known = {name for part in parts for name in part.manifest.classes}
    if missing := _without_images(benchmark, parts, tasks, TRAIN):
        raise BenchmarkError(
            f"{data} no training image of {len(missing)} classes: "
            f"{with_known_spelling(missing, known)}"
        )
    missing = _without_images(benchmark, parts, tasks, TEST)
    for number, task in enumerate(tasks):
        needed = needed_classes(benchmark, [task])
        if needed and needed <= set(missing):
            raise BenchmarkError(
                f"the dataset has no test image of task {number} "
                f"({with_known_spelling(task, known)})"
            )
    if missing:
        warn(
            f"{data} no test image of {len(missing)} classes, which count in no result: "
            f"{with_known_spelling(missing, known)}",
        )
