"""Classes of a benchmark that would show no training image, from the sizes of the classes."""

from collections.abc import Mapping

import numpy as np

from iirc_data.benchmarks import Benchmark, class_order
from iirc_data.definitions import TRAIN
from iirc_data.label_combinations import label_combinations, label_ranks, ranks_in_order
from iirc_data.sampling import classes_with_empty_share, sample_shares
from iirc_data.splits import split_training_samples


def classes_without_share(benchmark: Benchmark, n_images: Mapping[str, int]) -> list[str]:
    """Return the classes whose fraction of every leaf class's images rounds to none.

    Args:
        benchmark: The benchmark.
        n_images: Number of training images of each leaf class, validation images included.
    """
    taxonomy, leaves = benchmark.taxonomy, benchmark.leaf_classes
    names = list(taxonomy.levels)
    labels = label_combinations(map(taxonomy.labels_of, leaves), class_order([names]))
    ranks = label_ranks(taxonomy, leaves)
    ranks = ranks_in_order(labels) if ranks is None else ranks
    leaf_ids = np.repeat(
        np.arange(len(leaves), dtype=np.int32), [n_images.get(leaf, 0) for leaf in leaves]
    )
    trained = leaf_ids[split_training_samples(leaf_ids, benchmark.splits)[TRAIN]]
    sizes = np.bincount(trained, minlength=len(leaves))
    shares = sample_shares(labels, ranks, sizes, benchmark.sampling)
    return [names[index] for index in classes_with_empty_share(labels, shares)]
