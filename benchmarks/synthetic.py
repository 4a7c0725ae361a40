"""Sample tables with the format and size of real ones, but without images, for benchmarks."""

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np

from iirc_data.benchmarks import Benchmark
from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, Setup
from iirc_data.shards.manifest import Manifest, Shard
from iirc_data.shards.table import SampleTable

CIFAR100_TRAIN = 500
CIFAR100_TEST = 100
IMAGENET_TEST = 50

_IMAGE_BYTES = 110_000
_MEMBER_BYTES = 512 + 215 * 512  # tar header, and the image padded to whole blocks


def imagenet_class_sizes(classes: Sequence[str]) -> dict[str, int]:
    """Return the number of training images per class, distributed as in ImageNet.

    In ImageNet, 895 of 1,000 classes have 1,300 images, and the others have 732 to 1,299 images;
    there are 1,281,167 images in total.
    """
    small = np.linspace(0, 1, math.ceil(0.105 * len(classes))) ** 0.46
    sizes = dict.fromkeys(classes, 1300)
    for name, share in zip(classes[::9], 732 + 567 * small, strict=False):
        sizes[name] = int(share)
    return sizes


def imagenet21k_sizes() -> dict[str, dict[str, int]]:
    """Return the number of images per split and class of a dataset of ImageNet-21k's shape.

    It has 21,000 classes, 14.7 million images and 42,000 shards; all classes have the same size.
    """
    classes = [f"n{number:08d}" for number in range(21_000)]
    return {"train": dict.fromkeys(classes, 650), "val": dict.fromkeys(classes, 50)}


def imagenet21k_benchmark(setup: Setup) -> Benchmark:
    """Return a benchmark on :func:`imagenet21k_sizes`, with classes in a random order.

    In the IIRC setup, 1,000 superclasses of 20 classes come in the first two of 107 tasks; the
    class-incremental setup has 100 tasks.
    """
    leaves = list(imagenet21k_sizes()["train"])
    random.Random(0).shuffle(leaves)
    superclasses: dict[str, list[str]] = {}
    if setup == IIRC_SETUP:
        superclasses = {f"superclass {n}": leaves[20 * n : 20 * n + 20] for n in range(1000)}
    names = list(superclasses)
    per_task = 210 if setup == CIL_SETUP else 200
    tasks = [names[:500], names[500:]] if names else []
    random.Random(1).shuffle(leaves)
    tasks += [leaves[start : start + per_task] for start in range(0, len(leaves), per_task)]
    grouped = {leaf for subclasses in superclasses.values() for leaf in subclasses}
    return Benchmark(
        name=f"{setup} of ImageNet-21k's shape",
        dataset="synthetic",
        setup=setup,
        superclasses=superclasses,
        other_classes=[leaf for leaf in leaves if leaf not in grouped],
        schedules=[tasks],
    )


def inaturalist_sizes() -> dict[str, dict[str, int]]:
    """Return the number of images per split and class of a dataset of iNaturalist 2021's shape.

    It has 10,000 classes, 2.7 million images for training and 10 per class for validation.
    """
    classes = [f"{number:05d}" for number in range(10_000)]
    return {"train": dict.fromkeys(classes, 270), "val": dict.fromkeys(classes, 10)}


def inaturalist_benchmark() -> Benchmark:
    """Return a benchmark of seven levels on :func:`inaturalist_sizes`.

    Each of the six upper levels is a task, and the species follow in tasks of 200.
    """
    names = list(inaturalist_sizes()["train"])
    random.Random(0).shuffle(names)
    species = [names[start : start + 200] for start in range(0, len(names), 200)]
    superclasses: dict[str, list[str]] = {}
    upper: list[list[str]] = []
    for level, n_classes in enumerate((4884, 1103, 273, 51, 13, 3)):  # genus to kingdom
        above = [f"level {5 - level}, {number}" for number in range(n_classes)]
        superclasses.update({name: names[number::n_classes] for number, name in enumerate(above)})
        upper.insert(0, above)
        names = above
    return Benchmark(
        name="iNaturalist 2021's shape",
        dataset="synthetic",
        superclasses=superclasses,
        schedules=[[*upper, *species]],
    )


def synthetic_dataset(
    sizes: Mapping[str, Mapping[str, int]], shard_samples: int = 1300
) -> tuple[Manifest, SampleTable]:
    """Return manifest and sample table of a dataset without image files.

    Args:
        sizes: For each split, the number of images of each class.
        shard_samples: Maximum number of images per shard.
    """
    classes = sorted({name for split in sizes.values() for name in split})
    class_index = {name: index for index, name in enumerate(classes)}
    splits: dict[str, list[Shard]] = {}
    for split, per_class in sizes.items():
        splits[split] = [
            Shard(
                path=f"{split}/{name}-{part:06d}.tar",
                class_name=name,
                samples=min(shard_samples, per_class[name] - part * shard_samples),
                bytes=min(shard_samples, per_class[name] - part * shard_samples) * _MEMBER_BYTES,
                sha256="0" * 64,
            )
            for name in sorted(per_class)
            for part in range(math.ceil(per_class[name] / shard_samples))
        ]
    shards = [shard for split in splits.values() for shard in split]
    counts = np.array([shard.samples for shard in shards])
    starts = np.cumsum(counts) - counts
    n_samples = int(counts.sum())
    ones = np.ones(n_samples, np.int64)
    table = SampleTable.from_columns(
        {
            "shard": np.repeat(np.arange(len(shards)), counts),
            "offset": (np.arange(n_samples) - np.repeat(starts, counts)) * _MEMBER_BYTES + 512,
            "size": _IMAGE_BYTES * ones,
            "class_id": np.repeat([class_index[shard.class_name] for shard in shards], counts),
            "height": 375 * ones,
            "width": 500 * ones,
            "mode": 0 * ones,
        }
    )
    manifest = Manifest(
        dataset="synthetic",
        image_formats=["jpg"],
        classes=classes,
        splits=splits,
        table_sha256=table.digest(),
    )
    return manifest.model_copy(update={"digest": manifest.compute_digest()}), table
