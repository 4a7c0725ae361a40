"""Measures the time and memory to open a shard folder of ImageNet's size, or of ImageNet-21k's.

``python -m benchmarks.open_dataset`` (Linux) opens 1.28 million training images;
``--shape imagenet21k`` opens 14.7 million images in 42,000 shards. Manifest and sample table have
the real format; there are no image files, because opening does not read images. Each
repeat is a new process; memory is measured relative to its use after the imports.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import typer

from benchmarks.synthetic import (
    IMAGENET_TEST,
    imagenet21k_sizes,
    imagenet_class_sizes,
    synthetic_dataset,
)
from iirc_data.benchmarks import load_benchmark
from iirc_data.console import run_tool
from iirc_data.shards import ShardStore

GOAL_SECONDS = 1.0
GOAL_MEGABYTES = {"imagenet": 200.0, "imagenet21k": 300.0}


class Shape(StrEnum):
    """Which dataset's numbers of images and shards to use."""

    IMAGENET = "imagenet"
    IMAGENET21K = "imagenet21k"


def resident_megabytes(field: str) -> float:
    """Return this process's memory: ``"VmRSS"`` for the current value, ``"VmHWM"`` for the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return kibibytes * 1024 / 1e6


def measure_opening(root: str) -> tuple[float, float, float]:
    """Open a shard folder.

    Returns:
        Seconds, megabytes in use afterwards, and peak megabytes.
    """
    before = resident_megabytes("VmRSS")
    started = perf_counter()
    store = ShardStore.open(root)
    duration = perf_counter() - started
    assert len(store) > 1_280_000
    return duration, resident_megabytes("VmRSS") - before, resident_megabytes("VmHWM") - before


def main(
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of repeats; the medians are printed.")
    ] = 5,
    shape: Annotated[
        Shape, typer.Option(help="Dataset whose numbers of images and shards are used.")
    ] = Shape.IMAGENET,
) -> None:
    """Measure the time and memory to open a shard folder of the size of a well-known dataset."""
    if shape == Shape.IMAGENET21K:
        sizes = imagenet21k_sizes()
    else:
        classes = load_benchmark("incremental_imagenet_full").leaf_classes
        test = dict.fromkeys(classes, IMAGENET_TEST)
        sizes = {"train": imagenet_class_sizes(classes), "val": test}
    manifest, table = synthetic_dataset(sizes)
    with tempfile.TemporaryDirectory() as folder:
        table.save(Path(folder))
        manifest.save(Path(folder))
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
            results = list(fresh.map(measure_opening, [folder] * repeats))
    duration, stays, peak = (median(column) for column in zip(*results, strict=True))
    goal = GOAL_MEGABYTES[shape]
    met = duration < GOAL_SECONDS and peak < goal
    print(
        f"opening {len(table):,} samples in {len(manifest.shards):,} shards: {duration:.2f} s, "
        f"{stays:.0f} MB, peak {peak:.0f} MB; goal of {GOAL_SECONDS:.0f} s and "
        f"{goal:.0f} MB: {'met' if met else 'missed'}"
    )


if __name__ == "__main__":
    run_tool(main)
