"""Trains methods on the frozen features of CIFAR-100, and writes the table.

    python -m benchmarks.frozen_on_cifar100 RUNS --data SHARDS    # one run after the other
    python -m benchmarks.frozen_on_cifar100 RUNS --table          # of the runs that are finished

Features that are not in the cache are computed by the first run: ``iirc features compute`` does it
ahead, so that the table's times do not contain it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import typer

from benchmarks.measured_table import (
    COSTS_NAME,
    Data,
    MeasuredTable,
    Row,
    RunsFolder,
    WriteTable,
    mean_and_deviation,
)
from benchmarks.results import ROOT
from iirc_train.metrics import MAIN_METRIC, TOP1
from iirc_train.run.directory import read_metrics
from iirc_train.run.results import read_results

BENCHMARKS = {"cil_cifar100_b0_10": ("top-1", TOP1), "iirc_cifar100": ("pw-JS", MAIN_METRIC)}
METHODS = {
    "SimpleCIL": ("simplecil", ""),
    "SLDA": ("slda", ""),
    "RanPAC, M = 2,000": ("ranpac", "--ranpac-features 2000"),
    "FeCAM": ("fecam", ""),
    "RanPAC, M = 10,000": ("ranpac", ""),
}
ORDERS = (0, 1, 2)

TABLE = MeasuredTable(
    program="benchmarks.frozen_on_cifar100",
    page=ROOT / "docs" / "results_frozen.md",
    kept=ROOT / "docs" / "results_frozen",
    options="--network efficientnet_lite0 --weights default --threads 1",
    rows=tuple(
        Row(f"{name}, {benchmark}", method, options, benchmark, schedules=ORDERS)
        for name, (method, options) in METHODS.items()
        for benchmark in BENCHMARKS
        if not (method == "fecam" and benchmark == "iirc_cifar100")  # it has no multi-label form
    ),
    shards="shards/cifar100",
)


def main(runs: RunsFolder, data: Data = None, table: WriteTable = False) -> None:
    """Train the methods, or write the table of the runs that are finished."""
    TABLE.run(runs, data, table, lambda run: str(read_results(run).all_seen.round(3)), _lines)


def _lines(finished: dict[Row, list[Path]]) -> Iterator[str]:
    for benchmark, (title, metric) in BENCHMARKS.items():
        yield f"\n`{benchmark}`:\n"
        yield f"| | orders | {title}: last | average | time (s) | peak memory (GB) | state (MB) |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for row, folders in finished.items():
            if row.benchmark == benchmark:
                yield _line(row.name.removesuffix(f", {benchmark}"), folders, metric)


def _line(name: str, folders: list[Path], metric: str) -> str:
    scores = [100 * read_results(folder, metric=metric).all_seen for folder in folders]
    state = [of_task.get("statistics_bytes", 0) for run in folders for of_task in read_metrics(run)]
    costs = [json.loads((folder / COSTS_NAME).read_text()) for folder in folders]
    cells = (
        mean_and_deviation([of_run[-1] for of_run in scores]),
        mean_and_deviation([of_run.mean() for of_run in scores]),
        f"{max(of_run['seconds'] for of_run in costs):.0f}",
        f"{max(of_run['peak_memory_bytes'] for of_run in costs) / 1e9:.1f}",
        f"{max(state) / 1e6:.0f}",
    )
    return f"| {name} | {len(folders)} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    typer.run(main)
