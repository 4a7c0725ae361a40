"""Split selection: the samples of training, in-task and post-task validation, and test."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark, SplitSettings
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.runs import Runs, rows_by_value
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.table import SampleTable
from iirc_data.warning import warn

TRAINING_FOLDER = "train"
TEST_FOLDERS = ("test", "val")


def split_sample_ids(
    benchmark: Benchmark,
    manifest: Manifest,
    table: SampleTable,
    split: SplitName,
    samples_per_class: int | None = None,
) -> NDArray[np.int64]:
    """Return the ids, int64, of a split's samples that belong to the benchmark's classes.

    Args:
        benchmark: The benchmark.
        manifest: Manifest of the dataset.
        table: Sample table of the dataset.
        split: See :meth:`TaskSequence.from_table`.
        samples_per_class: See :meth:`TaskSequence.from_table`.

    Returns:
        int64 (n,), rows of the sample table in the order that sampling uses
        (:attr:`Benchmark.image_order`).

    Raises:
        BenchmarkError: The dataset lacks the split's folder.
    """
    return split_sample_runs(benchmark, manifest, table, split, samples_per_class).numbers()


def split_sample_runs(
    benchmark: Benchmark,
    manifest: Manifest,
    table: SampleTable,
    split: SplitName,
    samples_per_class: int | None = None,
) -> Runs:
    """Return what :func:`split_sample_ids` returns, grouped by class of the manifest."""
    rows = manifest.split_rows(split_folder(list(manifest.splits), manifest.dataset, split))
    class_ids = table.class_id[rows.start : rows.stop]
    runs = split_runs(benchmark, manifest.classes, class_ids, split, samples_per_class)
    return runs.shifted(rows.start)


def split_folder(folders: Sequence[str], dataset: str, split: SplitName) -> str:
    """Return the folder of a dataset that holds the images of a split.

    Raises:
        BenchmarkError: The dataset has no such folder.
    """
    candidates = TEST_FOLDERS if split == TEST else (TRAINING_FOLDER,)
    for name in candidates:
        if name in folders:
            return name
    raise BenchmarkError(
        f"dataset {dataset!r} has the splits {list(folders)}; {split!r} needs "
        f"{' or '.join(candidates)}"
    )


def split_runs(
    benchmark: Benchmark,
    classes: Sequence[str],
    class_ids: NDArray[np.int32],
    split: SplitName,
    samples_per_class: int | None = None,
) -> Runs:
    """Return the positions of a split's images among those of its folder.

    Args:
        benchmark: The benchmark.
        classes: Names of the classes, sorted.
        class_ids: int32 (N,), index into ``classes`` of each image of the folder (see
            :func:`split_folder`), in the order of the dataset.
        split: See :meth:`TaskSequence.from_table`.
        samples_per_class: See :meth:`TaskSequence.from_table`.

    Returns:
        Positions of images of the benchmark's classes, in the order that sampling uses, grouped by
        index into ``classes``.
    """
    if benchmark.image_order == "published_imagenet":
        index = {name: number for number, name in enumerate(classes)}
        listed = list(dict.fromkeys([*benchmark.other_classes, *benchmark.leaf_classes]))
        if split != TEST and (missing := [name for name in listed if name not in index]):
            warn(
                f"the dataset lacks {len(missing)} classes ({', '.join(missing[:3])}, …) of "
                f"benchmark {benchmark.name!r}, whose numbers of images determine the published "
                "order: training and validation images are not divided exactly as published",
            )
        order = published_imagenet_order(class_ids, [index[n] for n in listed if n in index])
        runs = Runs.of(order, class_ids[order])
    else:
        leaves = set(benchmark.leaf_classes)
        wanted = np.array([name in leaves for name in classes], bool)
        runs = Runs.of_rows(class_ids)
        runs = runs.take(wanted[runs.groups])
    if split != TEST:
        runs = _part_of_split(runs, benchmark.splits, split)
    return runs if samples_per_class is None else runs.between(0, samples_per_class)


def split_training_samples(
    class_ids: NDArray[np.int32], settings: SplitSettings
) -> dict[SplitName, NDArray[np.int64]]:
    """Divide training samples, class by class and in dataset order.

    Of the n samples of a class, the first ``int(intask_valid_ratio * n)`` go to in-task validation,
    the next ``int(posttask_valid_ratio * n)`` to post-task validation and the rest to training, as
    in the published loaders.

    Args:
        class_ids: int32 (N,), leaf class of each sample, in dataset order.
        settings: The two ratios.

    Returns:
        The positions of the samples of each of the three splits, int64, ascending.
    """
    runs = Runs.of_rows(class_ids)
    return {
        split: _part_of_split(runs, settings, split).numbers()
        for split in (INTASK_VALID, POSTTASK_VALID, TRAIN)
    }


def _part_of_split(runs: Runs, settings: SplitSettings, split: SplitName) -> Runs:
    n = runs.group_sizes()
    n_intask = (settings.intask_valid_ratio * n).astype(np.int64)
    n_valid = n_intask + (settings.posttask_valid_ratio * n).astype(np.int64)
    first, end = {
        INTASK_VALID: (np.zeros_like(n), n_intask),
        POSTTASK_VALID: (n_intask, n_valid),
        TRAIN: (n_valid, n),
    }[split]
    return runs.between(first, end)


def published_imagenet_order(
    class_ids: NDArray[np.int32], listed_classes: Sequence[int]
) -> NDArray[np.int64]:
    """Return the order of images in the published ImageNet loader.

    The published loader lists the folders of the classes, each with its file names sorted. It then
    intends to sort all paths, but applies the inverse of the sorting permutation. If all classes
    had the same number of images, the order within a class would not change. ImageNet's classes
    differ in size, so the images of most classes are cut into two or three parts in another order.
    This order determines the division into training and validation and the samples of superclasses.

    Args:
        class_ids: int32 (N,), class of each image, in the order of the sorted paths.
        listed_classes: Class ids in the order of the published loader's folders.

    Returns:
        int64 (n,), positions of the images of the listed classes.
    """
    rows = rows_by_value(class_ids)
    listed = [rows[class_id] for class_id in listed_classes if class_id in rows]
    read = np.concatenate([*listed, np.empty(0, np.int64)])
    order = np.empty_like(read)
    order[np.argsort(read, kind="stable")] = read
    return order


def in_published_order(
    benchmark: Benchmark, classes: Sequence[str], class_ids: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the order of a split's samples in the published loaders.

    Args:
        benchmark: The benchmark, whose order of leaf classes is used.
        classes: Names of the classes.
        class_ids: int32 (N,), index into ``classes`` of each sample, or of each run of samples of
            a class, in the order that sampling uses; within a class this order is kept.

    Returns:
        int64 (N,), positions in ``class_ids``.
    """
    place = {name: number for number, name in enumerate(benchmark.leaf_classes)}
    places = np.array([place.get(name, -1) for name in classes], np.int32)
    return np.argsort(places[class_ids], kind="stable")
