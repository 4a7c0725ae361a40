"""Published API: the four splits of a benchmark, as lifelong datasets."""

from collections.abc import Callable
from typing import Any

from iirc_data.benchmarks import Benchmark, class_order, load_benchmark
from iirc_data.dataset_checks import check_classes
from iirc_data.definitions import (
    IIRC_SETUP,
    INTASK_VALID,
    POSTTASK_VALID,
    PYTORCH,
    TENSORFLOW,
    TEST,
    TRAIN,
    PathLike,
    SplitName,
)
from iirc_data.errors import BenchmarkError
from iirc_data.label_combinations import label_ranks
from iirc_data.lifelong_dataset import tensorflow_dataset, torch_dataset
from iirc_data.lifelong_dataset.base_dataset import BaseDataset
from iirc_data.lifelong_dataset.image_collection import ImageCollection, open_collections
from iirc_data.lifelong_dataset.samples import SampleLabels, Samples
from iirc_data.splits import in_published_order, split_runs
from iirc_data.utils.utils import print_msg

FRAMEWORKS: dict[str, type[BaseDataset]] = {
    PYTORCH: torch_dataset.Dataset,
    TENSORFLOW: tensorflow_dataset.Dataset,
}


def get_lifelong_datasets(
    dataset_name: PathLike,
    dataset_root: PathLike = "./data",
    setup: str = IIRC_SETUP,
    framework: str = PYTORCH,
    tasks_configuration_id: int = 0,
    essential_transforms_fn: Callable[[Any], Any] | None = None,
    augmentation_transforms_fn: Callable[[Any], Any] | None = None,
    cache_images: bool = False,
    joint: bool = False,
) -> tuple[dict[str, BaseDataset], list[list[str]], dict[str, int]]:
    """Create the four splits of a benchmark.

    The samples of each split are in the published order: subclasses as in the benchmark's
    taxonomy, and within a class as the published loader lists them. Index ``i`` of a task is
    therefore the same image whether it is read from shards or from the raw layout.

    Args:
        dataset_name: Name of a benchmark, such as ``"iirc_cifar100"``, or the path of a benchmark
            file (``.json``).
        dataset_root: Location of the images: a shard folder, or a folder that contains it under
            the dataset's name; the address of a shard folder (``https://…``, ``s3://…``); a folder
            that contains ``cifar-100-python``; or a folder that contains ``train`` and ``val``
            with one folder per class, the layout of ImageNet.
        setup: ``IIRC_SETUP`` or ``CIL_SETUP``. A benchmark with superclasses needs ``IIRC_SETUP``:
            with ``CIL_SETUP``, reading a sample with several labels is an error; see
            :class:`BaseDataset`.
        framework: ``PYTORCH``, or ``TENSORFLOW`` for NumPy arrays.
        tasks_configuration_id: Number of the benchmark's schedule.
        essential_transforms_fn: See :class:`BaseDataset`.
        augmentation_transforms_fn: See :class:`BaseDataset`. Used by the split ``"train"``; the
            other splits use the essential transforms.
        cache_images: Keep the images of the current task in memory after they are first read.
        joint: Put all classes of the schedule into one task.

    Returns:
        Three values: the datasets by split; the class names that each task introduces; and the
        index of each class, counted in order of appearance. ``"train"`` and ``"intask_valid"`` are
        sampled and show incomplete information; ``"posttask_valid"`` and ``"test"`` show all
        samples with complete information.

    Raises:
        BenchmarkError: The benchmark, schedule, setup or framework does not exist, or the dataset
            lacks classes of the benchmark.
        SourceError: ``dataset_root`` contains no dataset, or a file is malformed.
        ShardError: The shards are incomplete or damaged.
    """
    if framework not in FRAMEWORKS:
        raise BenchmarkError(
            f"framework is {framework!r}, expected PYTORCH ({PYTORCH!r}) or TENSORFLOW "
            f"({TENSORFLOW!r})"
        )
    print_msg(f"Creating {dataset_name}")
    benchmark = load_benchmark(dataset_name)
    benchmark.check_one_dataset("train on it with iirc_train.train or iirc train")
    tasks = benchmark.tasks(tasks_configuration_id, joint=joint)
    collections = open_collections(dataset_root, benchmark)
    train, test = collections[TRAIN], collections[TEST]
    check_classes(benchmark, train, tasks)
    print_msg(f"Setup used: {setup}\nUsing {framework}")

    def make(split: SplitName, augment: Callable[[Any], Any] | None = None) -> BaseDataset:
        images = test if split == TEST else train
        return FRAMEWORKS[framework](
            arrange_samples(benchmark, images, split),
            tasks,
            setup=setup,
            using_image_path=images.are_paths,
            cache_images=cache_images,
            essential_transforms_fn=essential_transforms_fn,
            augmentation_transforms_fn=augment,
            test_mode=split in (POSTTASK_VALID, TEST),
            **benchmark.sampling.model_dump(),
        )

    datasets: dict[str, BaseDataset] = {
        TRAIN: make(TRAIN, augmentation_transforms_fn),
        INTASK_VALID: make(INTASK_VALID),
        POSTTASK_VALID: make(POSTTASK_VALID),
        TEST: make(TEST),
    }
    print_msg("Dataset created")
    return datasets, tasks, class_order(tasks)


def arrange_samples(benchmark: Benchmark, images: ImageCollection, split: SplitName) -> Samples:
    """Return a split's samples in the published order.

    Args:
        benchmark: The benchmark, which defines taxonomy and splits.
        images: The images that contain the split.
        split: Name of the split.
    """
    runs = split_runs(benchmark, images.classes, images.class_ids, split)
    positions = runs.take(in_published_order(benchmark, images.classes, runs.groups)).numbers()
    labels = tuple(benchmark.labels_of(name) for name in images.classes)
    ranks = label_ranks(benchmark.taxonomy, images.classes)
    of_samples = SampleLabels(labels, images.class_ids[positions], ranks)
    return Samples(images.images, positions, of_samples)
