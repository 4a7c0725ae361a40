"""Whether the classes that a schedule needs have images in the splits that training reads."""

import warnings
from collections.abc import Sequence

from iirc_data.benchmarks import Benchmark
from iirc_data.definitions import TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.shards.manifest import Manifest
from iirc_data.spelling import with_known_spelling
from iirc_data.task_view import needed_classes, split_folder


def classes_without_images(
    benchmark: Benchmark, manifest: Manifest, tasks: Sequence[Sequence[str]], split: SplitName
) -> list[str]:
    """Return the leaf classes that tasks need and that have no image in a split's folder, sorted.

    Dividing the images of a class leaves at least one to train on, so of a class with images in
    the training folder none is left out.

    Raises:
        BenchmarkError: The dataset lacks the split's folder.
    """
    folder = split_folder(list(manifest.splits), manifest.dataset, split)
    there = {shard.class_name for shard in manifest.splits[folder]}
    return sorted(needed_classes(benchmark, tasks) - there)


def check_images(benchmark: Benchmark, manifest: Manifest, tasks: Sequence[Sequence[str]]) -> None:
    """Check that every class has images to train on and to test on.

    Classes without a test image are a warning, unless they are all that a task tests.

    Args:
        benchmark: The benchmark.
        manifest: The dataset's manifest.
        tasks: For each task the names of its classes.

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
