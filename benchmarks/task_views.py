"""Measures the time to create all task views of IIRC-ImageNet-full.

``python -m benchmarks.task_views``. A view consists of the sample ids of a task and their visible
labels. At the size of ImageNet (1.28 million images), only this project is timed, with a goal of
0.5 s, and two benchmarks of ImageNet-21k's shape (14.7 million images), with a goal of 1 s for a
view from the sample table, and all views of a benchmark of iNaturalist 2021's shape (seven levels,
10,000 species, 2.7 million images), with a goal of 2 s. The comparison with ``iirc==1.0.1`` uses a
twentieth of the images, because the published package scans all samples for each class.
"""

from functools import partial
from math import nan
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.parity import (
    made_up_dataset,
    published_dataset,
    published_package,
    published_tasks,
)
from benchmarks.synthetic import (
    imagenet21k_benchmark,
    imagenet21k_sizes,
    inaturalist_benchmark,
    inaturalist_sizes,
    synthetic_dataset,
)
from benchmarks.timing import interleaved
from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.console import run_tool
from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, TRAIN
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.table import SampleTable
from iirc_data.task_sequence import TaskSequence

BENCHMARK = "iirc_imagenet_full"
GOAL_SECONDS = 0.5
GOAL_SECONDS_21K = 1.0
GOAL_SECONDS_SEVEN_LEVELS = 2.0


def all_views(benchmark: Benchmark, manifest: Manifest, table: SampleTable) -> None:
    """Create the training views of all tasks, one after the other."""
    sequence = TaskSequence.from_table(benchmark, manifest, table, TRAIN)
    for task in range(len(sequence)):
        sequence.view(task)


def measure(fraction: float, repeats: int, published_repeats: int) -> tuple[int, float, float]:
    """Time both packages at a fraction of ImageNet's size.

    Returns:
        Number of training images, seconds of this project, and seconds of the published package
        (NaN if ``published_repeats`` is 0).
    """
    benchmark = load_benchmark(BENCHMARK)
    manifest, table = made_up_dataset(benchmark, fraction)
    ours = partial(all_views, benchmark, manifest, table)

    def published() -> None:
        dataset = published_dataset(
            benchmark, manifest, table, TRAIN, [published_tasks(BENCHMARK, 0)]
        )
        for task in range(dataset.n_tasks):
            dataset.choose_task(task)
            for index in range(len(dataset)):
                dataset.get_labels(index)

    return (
        len(manifest.split_rows(TRAIN)),
        interleaved({"": ours}, repeats)[""].median,
        interleaved({"": published}, published_repeats)[""].median if published_repeats else nan,
    )


def measure_21k(repeats: int) -> dict[str, float]:
    """Return the seconds from the sample table to a view, at ImageNet-21k's shape.

    Returns:
        For the first task and for all tasks together, in both setups, medians of training views.
    """
    manifest, table = synthetic_dataset(imagenet21k_sizes())

    def view(benchmark: Benchmark, all_tasks: bool) -> None:
        sequence = TaskSequence.from_table(benchmark, manifest, table, TRAIN)
        sequence.view(range(len(sequence)) if all_tasks else 0)

    contenders = {
        f"{setup}, {name}": partial(view, imagenet21k_benchmark(setup), all_tasks)
        for setup in (CIL_SETUP, IIRC_SETUP)
        for name, all_tasks in (("first task", False), ("all tasks together", True))
    }
    return {name: timing.median for name, timing in interleaved(contenders, repeats).items()}


def measure_seven_levels(repeats: int) -> float:
    """Return the seconds from sample table to all views, at iNaturalist 2021's shape; median."""
    manifest, table = synthetic_dataset(inaturalist_sizes())
    views = partial(all_views, inaturalist_benchmark(), manifest, table)
    return interleaved({"": views}, repeats)[""].median


def main(
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of repeats; the medians are printed.")
    ] = 9,
    fraction: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Fraction of ImageNet for the comparison.")
    ] = 0.05,
) -> None:
    """Time all task views of IIRC-ImageNet-full, compared with iirc==1.0.1."""
    published_package()  # before minutes of measuring
    table = Table(title=f"All task views of {BENCHMARK}, schedule 0 (medians)")
    for heading in ("training images", "this project", "iirc==1.0.1", "ratio"):
        table.add_column(heading, justify="right")
    n_images, full, _ = measure(1.0, repeats, published_repeats=0)
    table.add_row(f"{n_images:,}", f"{full:.3f} s", "", "")
    n_images, ours, published = measure(fraction, repeats, published_repeats=3)
    table.add_row(f"{n_images:,}", f"{ours:.3f} s", f"{published:.2f} s", f"{published / ours:.0f}")
    Console().print(table)
    for name, seconds in measure_21k(max(1, repeats // 3)).items():
        met = "met" if seconds < GOAL_SECONDS_21K else "missed"
        print(f"a view at ImageNet-21k's shape, {name}: {seconds:.2f} s; goal of 1 s: {met}")
    seconds = measure_seven_levels(max(1, repeats // 3))
    met = "met" if seconds < GOAL_SECONDS_SEVEN_LEVELS else "missed"
    print(f"all views of seven levels at iNaturalist's shape: {seconds:.2f} s; goal of 2 s: {met}")
    verdict = "met" if full < GOAL_SECONDS else "missed"
    print(f"goal of {GOAL_SECONDS} s at ImageNet's size: {verdict}")


if __name__ == "__main__":
    run_tool(main)
