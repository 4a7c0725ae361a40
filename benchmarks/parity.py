"""Compares every task view of the six published benchmarks with ``iirc==1.0.1``.

``python -m benchmarks.parity``. The comparison covers sample ids and labels in all four splits. The
published package takes tasks, taxonomy and settings from its metadata, and this project from its
manifests. The samples are synthetic, as many per class as in CIFAR-100 and ImageNet. The program
prints a line for each schedule, and exits with status 1 if anything differs. At full size it takes
about 15 minutes, because the published package scans all samples for each class.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.synthetic import (
    CIFAR100_TEST,
    CIFAR100_TRAIN,
    IMAGENET_TEST,
    imagenet_class_sizes,
    synthetic_dataset,
)
from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.console import run_tool
from iirc_data.definitions import (
    INTASK_VALID,
    NO_LABEL,
    NO_LABEL_PLACEHOLDER,
    POSTTASK_VALID,
    TEST,
    TRAIN,
    SplitName,
)
from iirc_data.errors import IIRCError
from iirc_data.runs import rows_by_value
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.table import SampleTable
from iirc_data.splits import split_sample_ids
from iirc_data.task_sequence import TaskSequence
from iirc_data.task_view import TaskView

if TYPE_CHECKING:
    from iirc.lifelong_dataset.base_dataset import BaseDataset

SPLITS: tuple[SplitName, ...] = (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)

Sample = tuple[int, frozenset[str]]


def published_package() -> Any:
    """Return the package ``iirc``, with the modules that the comparison uses.

    Raises:
        IIRCError: The package, or one that it imports, is not installed.
    """
    try:
        import iirc.datasets_loader
        import iirc.lifelong_dataset.torch_dataset
    except ModuleNotFoundError as error:
        package = (error.name or "iirc").partition(".")[0]
        raise IIRCError(
            f"the comparison with iirc 1.0.1 needs the package {package}, which is not "
            "installed: pip install -e '.[test]'"
        ) from error
    return iirc


def published_benchmarks() -> list[str]:
    """Return the names of the benchmarks of the published package."""
    names: list[str] = published_package().datasets_loader.datasets_names
    return names


@dataclass
class Comparison:
    """The outcome for one schedule.

    Attributes:
        schedule: Number of the schedule.
        n_tasks: Number of compared tasks.
        n_samples: For each split, number of compared samples over all tasks.
        differences: Descriptions of the differences; empty if there are none.
    """

    schedule: int
    n_tasks: int
    n_samples: dict[SplitName, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def compare(
    benchmark: Benchmark, fraction: float = 1.0, splits: Sequence[SplitName] = SPLITS
) -> Iterator[Comparison]:
    """Compare all schedules of a benchmark.

    Args:
        benchmark: The benchmark; the published package finds its own definition by the name.
        fraction: Fraction of the real class sizes.
        splits: Splits to compare.

    Yields:
        A comparison for each schedule.
    """
    manifest, table = made_up_dataset(benchmark, fraction)
    schedules = [published_tasks(benchmark.name, n) for n in range(len(benchmark.schedules))]
    references = {
        split: published_dataset(benchmark, manifest, table, split, schedules) for split in splits
    }
    first_task = 0
    for schedule, tasks in enumerate(schedules):
        comparison = Comparison(schedule, len(tasks))
        if tasks != benchmark.tasks(schedule):
            comparison.differences.append("tasks")
        for split, reference in references.items():
            ours = TaskSequence.from_table(benchmark, manifest, table, split, schedule=schedule)
            _compare_split(comparison, split, ours, reference, first_task)
        yield comparison
        first_task += len(tasks)


def _compare_split(
    comparison: Comparison,
    split: SplitName,
    ours: TaskSequence,
    reference: "BaseDataset",
    first_task: int,
) -> None:
    comparison.n_samples[split] = 0
    reference.seen_classes = []
    last = len(ours) - 1
    # after the last task, the first one again: complete information then includes later labels
    for task, seen_up_to in [*((task, task) for task in range(len(ours))), (0, last)]:
        reference.choose_task(first_task + task)
        expected = published_samples(reference)
        view = ours.view(task, seen_up_to)
        where = f"{split}, task {task} seen up to {seen_up_to}"
        if our_samples(view) != expected or len(view) != len(reference):
            comparison.differences.append(
                f"{where}: {len(view):,} samples, published {len(reference):,}"
            )
        if set(view.seen_class_names) != set(reference.seen_classes):
            comparison.differences.append(f"{where}: seen classes")
        comparison.n_samples[split] += len(view)


def our_samples(view: TaskView) -> list[Sample]:
    """Return sample ids, ascending, with their visible labels."""
    names = {NO_LABEL: NO_LABEL_PLACEHOLDER, **dict(enumerate(view.class_names))}
    pairs = list(map(tuple, view.labels.tolist()))
    labels = {
        (first, second): frozenset({names[first], names[second]} - {NO_LABEL_PLACEHOLDER})
        for first, second in set(pairs)
    }
    return list(zip(view.sample_ids.tolist(), map(labels.__getitem__, pairs), strict=True))


def published_samples(dataset: "BaseDataset") -> list[Sample]:
    """Return the same for the published dataset's current task; its images are sample ids."""
    items = (dataset.get_item(index) for index in range(len(dataset)))
    # as sets, because its order of two labels depends on the hash seed
    labels_of = {item: frozenset((first, second)) for item, first, second in items}
    placeholder = frozenset([NO_LABEL_PLACEHOLDER])
    return [(item, labels_of[item] - placeholder) for item in sorted(labels_of)]


def published_dataset(
    benchmark: Benchmark,
    manifest: Manifest,
    table: SampleTable,
    split: SplitName,
    schedules: Iterable[list[list[str]]],
) -> "BaseDataset":
    """Return the published dataset over a split's samples, in the order of its loaders.

    Its tasks are those of all schedules, one schedule after the other, so that it divides the
    samples among classes only once, which is slow.
    """
    configurations = _metadata("dataset_configurations.json")
    # the published loader uses this entry for both families of ImageNet benchmarks
    settings = configurations["iirc_imagenet" if "imagenet" in benchmark.name else benchmark.name]
    ids = split_sample_ids(benchmark, manifest, table, split)
    rows = rows_by_value(table.class_id[ids])
    samples = [
        (sample_id, labels)
        for labels in published_labels(benchmark.name)
        for sample_id in ids[rows[manifest.classes.index(labels[-1])]].tolist()
    ]
    return published_package().lifelong_dataset.torch_dataset.Dataset(
        samples,
        [task for tasks in schedules for task in tasks],
        setup=benchmark.setup,
        test_mode=split in (POSTTASK_VALID, TEST),
        superclass_data_pct=settings["superclass_data_pct"],
        subclass_data_pct=settings["subclass_data_pct"],
        superclass_sampling_size_cap=settings["superclass_sampling_size_cap"],
    )


def published_labels(name: str) -> list[tuple[str, ...]]:
    """Return the published label combinations, in the order of the published loaders."""
    if name.startswith("incremental"):
        dataset = "cifar100" if "cifar100" in name else "imagenet"
        return [(leaf,) for leaf in _metadata(f"{dataset}_classes.json")["classes"]]
    file = "iirc_cifar100_hierarchy" if "cifar100" in name else "iirc_imagenet_hierarchy_wnids"
    hierarchy = _metadata(f"{file}.json")
    subclasses = [(sup, sub) for sup, subs in hierarchy["super_classes"].items() for sub in subs]
    return [*subclasses, *((leaf,) for leaf in hierarchy["other_sub_classes"])]


def published_tasks(name: str, schedule: int) -> list[list[str]]:
    """Return the tasks of the published loader."""
    tasks: list[list[str]]
    tasks, _ = published_package().datasets_loader._get_tasks_configuration(name, schedule)
    return tasks


def made_up_dataset(benchmark: Benchmark, fraction: float) -> tuple[Manifest, SampleTable]:
    """Return a synthetic dataset with a fraction of the real number of images per class."""
    classes = benchmark.leaf_classes
    if benchmark.dataset == "imagenet":
        train, test = imagenet_class_sizes(classes), dict.fromkeys(classes, IMAGENET_TEST)
    else:
        train = dict.fromkeys(classes, CIFAR100_TRAIN)
        test = dict.fromkeys(classes, CIFAR100_TEST)
    return synthetic_dataset(
        {
            split: {name: int(fraction * size) for name, size in sizes.items()}
            for split, sizes in {"train": train, "test": test}.items()
        }
    )


def _metadata(file: str) -> dict[str, Any]:
    content: dict[str, Any]
    root = Path(published_package().datasets_loader.metadata_root)
    content = json.loads((root / file).read_bytes())
    return content


def main(
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Benchmarks to compare. [default: all]")
    ] = None,
    fraction: Annotated[
        float,
        typer.Option(
            min=0.05,
            max=1.0,
            help="Fraction of the real class sizes. Below about 0.2, the sample counts of some "
            "subclasses in the in-task validation split round to 0, for which the published "
            "package uses all samples.",
        ),
    ] = 1.0,
) -> None:
    """Compare every task view of the published benchmarks with iirc==1.0.1."""
    equal = _all_equal(benchmark or published_benchmarks(), fraction)
    print("every task view equals iirc==1.0.1" if equal else "task views differ from iirc==1.0.1")
    sys.exit(0 if equal else 1)


def _all_equal(names: Sequence[str], fraction: float) -> bool:
    """Compare benchmarks, print a line for each schedule, and return whether none differs."""
    equal = True
    for name in names:
        started = perf_counter()
        for comparison in compare(load_benchmark(name), fraction):
            counts = ", ".join(f"{split} {n:,}" for split, n in comparison.n_samples.items())
            verdict = "; ".join(["differs", *comparison.differences[:5]])
            if not comparison.differences:
                verdict = "equal"
            print(
                f"{name} schedule {comparison.schedule}: {comparison.n_tasks} tasks, {counts}: "
                f"{verdict} ({perf_counter() - started:.0f} s)",
                flush=True,
            )
            equal &= not comparison.differences
            started = perf_counter()
    return equal


if __name__ == "__main__":
    run_tool(main)
