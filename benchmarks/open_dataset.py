"""Measures the time and memory to open a shard folder of ImageNet's size.

``python -m benchmarks.open_dataset`` (Linux). Manifest and sample table have the real format and
1.28 million training images; there are no image files, because opening does not read images. Each
repeat is a new process; memory is measured relative to its use after the imports.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import typer

from benchmarks.synthetic import IMAGENET_TEST, imagenet_class_sizes, synthetic_dataset
from iirc_data.benchmarks import load_benchmark
from iirc_data.shards import ShardStore

GOAL_SECONDS = 1.0
GOAL_MEGABYTES = 200.0


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
) -> None:
    """Measure the time and memory to open a shard folder of ImageNet's size."""
    classes = load_benchmark("incremental_imagenet_full").leaf_classes
    sizes = {"train": imagenet_class_sizes(classes), "val": dict.fromkeys(classes, IMAGENET_TEST)}
    manifest, table = synthetic_dataset(sizes)
    with tempfile.TemporaryDirectory() as folder:
        table.save(Path(folder))
        manifest.save(Path(folder))
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
            results = list(fresh.map(measure_opening, [folder] * repeats))
    duration, stays, peak = (median(column) for column in zip(*results, strict=True))
    met = duration < GOAL_SECONDS and peak < GOAL_MEGABYTES
    print(
        f"opening {len(table):,} samples in {len(manifest.shards):,} shards: {duration:.2f} s, "
        f"{stays:.0f} MB, peak {peak:.0f} MB; goal of {GOAL_SECONDS:.0f} s and "
        f"{GOAL_MEGABYTES:.0f} MB: {'met' if met else 'missed'}"
    )


if __name__ == "__main__":
    typer.run(main)
