"""Which images of a dataset belong to train, in-task and post-task validation, and test."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark, SplitSettings
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.sampling import rows_by_value
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.table import SampleTable

TRAINING_FOLDER = "train"
TEST_FOLDERS = ("test", "val")


def split_sample_ids(
    benchmark: Benchmark,
    manifest: Manifest,
    table: SampleTable,
    split: SplitName,
    samples_per_class: int | None = None,
) -> NDArray[np.int64]:
    """Return the ids, int64, of the samples of the benchmark's classes in a split.

    They stand in the order that sampling goes by (:attr:`Benchmark.image_order`).

    Raises:
        BenchmarkError: The dataset lacks the split's folder.
    """
    rows = manifest.split_rows(split_folder(list(manifest.splits), manifest.dataset, split))
    class_ids = table.class_id[rows.start : rows.stop]
    positions = split_positions(benchmark, manifest.classes, class_ids, split, samples_per_class)
    return rows.start + positions


def split_folder(folders: Sequence[str], dataset: str, split: SplitName) -> str:
    """Return which of a dataset's folders a split is taken from.

    Raises:
        BenchmarkError: It is not there.
    """
    candidates = TEST_FOLDERS if split == TEST else (TRAINING_FOLDER,)
    for name in candidates:
        if name in folders:
            return name
    raise BenchmarkError(
        f"dataset {dataset!r} has the splits {list(folders)}; {split!r} needs "
        f"{' or '.join(candidates)}"
    )


def split_positions(
    benchmark: Benchmark,
    classes: Sequence[str],
    class_ids: NDArray[np.int32],
    split: SplitName,
    samples_per_class: int | None = None,
) -> NDArray[np.int64]:
    """Return which images of the folder that a split is taken from belong to it.

    Args:
        benchmark: The benchmark.
        classes: Names of the classes, sorted.
        class_ids: int32 (N,), each image's index into ``classes``, in the dataset's own order.
        split: See :meth:`TaskSequence.from_table`.
        samples_per_class: See :meth:`TaskSequence.from_table`.

    Returns:
        int64 (n,), positions of the images of the benchmark's classes, in the order that sampling
        goes by.
    """
    if benchmark.image_order == "published_imagenet":
        index = {name: number for number, name in enumerate(classes)}
        listed = [*benchmark.other_classes, *benchmark.superclass_of]
        if split != TEST and (missing := [name for name in listed if name not in index]):
            warnings.warn(
                f"the dataset lacks {len(missing)} classes ({', '.join(missing[:3])}, …) of "
                f"benchmark {benchmark.name!r}, by whose sizes the published loader orders "
                "images: training and validation images are not divided exactly as published",
                stacklevel=3,
            )
        order = published_imagenet_order(class_ids, [index[n] for n in listed if n in index])
    else:
        order = np.flatnonzero(np.isin(classes, benchmark.leaf_classes)[class_ids])
    if split != TEST:
        order = order[split_training_samples(class_ids[order], benchmark.splits)[split]]
    if samples_per_class is not None:
        order = order[_first_of_each(class_ids[order], samples_per_class)]
    return order


def split_training_samples(
    class_ids: NDArray[np.int32], settings: SplitSettings
) -> dict[SplitName, NDArray[np.int64]]:
    """Divide training samples class by class, in dataset order.

    Of a class's n samples the first ``int(intask_valid_ratio * n)`` are in-task validation, the
    next ``int(posttask_valid_ratio * n)`` post-task validation, the rest training: the rule of
    the published loaders.

    Args:
        class_ids: int32 (N,), leaf class of each sample, in dataset order.
        settings: The two ratios.

    Returns:
        For each of the three splits the positions of its samples, int64, ascending.
    """
    parts: dict[SplitName, list[NDArray[np.int64]]] = {
        INTASK_VALID: [],
        POSTTASK_VALID: [],
        TRAIN: [],
    }
    for rows in rows_by_value(class_ids).values():
        n_intask = int(settings.intask_valid_ratio * len(rows))
        n_valid = n_intask + int(settings.posttask_valid_ratio * len(rows))
        parts[INTASK_VALID].append(rows[:n_intask])
        parts[POSTTASK_VALID].append(rows[n_intask:n_valid])
        parts[TRAIN].append(rows[n_valid:])
    empty = [np.empty(0, np.int64)]
    # a stable sort is fast where the rows are in order already, as in a table of per-class shards
    return {
        name: np.sort(np.concatenate(rows or empty), kind="stable") for name, rows in parts.items()
    }


def published_imagenet_order(
    class_ids: NDArray[np.int32], listed_classes: Sequence[int]
) -> NDArray[np.int64]:
    """Return images in the order in which the published ImageNet loader lists them.

    It lists the classes' folders, each with its file names sorted, and then means to sort all
    paths, but applies the sorting permutation the wrong way round. Where all classes have equally
    many images that changes nothing within a class. In ImageNet they have not, and most classes'
    images come out cut in two or three, the parts in another order. Which images are for training
    and which for validation, and which of them a superclass shows, goes by this order.

    Args:
        class_ids: int32 (N,), class of each image, in the order of the sorted paths.
        listed_classes: Class ids in the order in which the loader lists the folders.

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
    """Return the order in which the published loaders list a split's samples.

    Args:
        benchmark: The benchmark; leaf classes come in its order.
        classes: Names of the classes.
        class_ids: int32 (N,), each sample's index into ``classes``, in the order that sampling goes
            by, which is kept within a class.

    Returns:
        int64 (N,), positions in ``class_ids``.
    """
    place = {name: number for number, name in enumerate(benchmark.leaf_classes)}
    places = np.array([place.get(name, -1) for name in classes])
    return np.argsort(places[class_ids], kind="stable")


def _first_of_each(class_ids: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    groups = [rows[:n] for rows in rows_by_value(class_ids).values()]
    return np.sort(np.concatenate(groups), kind="stable") if groups else np.empty(0, np.int64)
