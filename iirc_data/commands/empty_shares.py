"""Classes of a benchmark that would show no training image, from the sizes of the classes."""

from collections.abc import Mapping

import numpy as np

from iirc_data.benchmarks import Benchmark, class_order
from iirc_data.label_combinations import label_combinations, label_ranks, ranks_in_order
from iirc_data.sampling import sample_shares


def classes_without_share(benchmark: Benchmark, n_images: Mapping[str, int]) -> list[str]:
    """Return the classes whose fraction of every leaf class's images rounds to none.

    Args:
        benchmark: The benchmark.
        n_images: Number of training images of each leaf class, validation images included.
    """
    taxonomy, splits = benchmark.taxonomy, benchmark.splits
    leaves = benchmark.leaf_classes
    names = list(taxonomy.levels)
    labels = label_combinations(map(taxonomy.labels_of, leaves), class_order([names]))
    ranks = label_ranks(taxonomy, leaves)
    ranks = ranks_in_order(labels) if ranks is None else ranks
    trained = 1 - splits.intask_valid_ratio - splits.posttask_valid_ratio
    sizes = np.array([int(n_images.get(leaf, 0) * trained) for leaf in leaves], np.int64)
    shares = sample_shares(labels, ranks, sizes, benchmark.sampling)
    shown = np.bincount(labels[labels >= 0], shares[labels >= 0], minlength=len(names))
    return [name for name, n in zip(names, shown, strict=True) if n == 0]
