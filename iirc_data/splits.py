"""Dividing a dataset's training images into train, in-task and post-task validation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import SplitSettings
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TRAIN, SplitName
from iirc_data.sampling import rows_by_value


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
