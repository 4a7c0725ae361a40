"""Trains methods on the frozen features of CIFAR-100, and writes the table.

    python -m benchmarks.frozen_on_cifar100 RUNS --data SHARDS    # one run after the other
    python -m benchmarks.frozen_on_cifar100 RUNS --table          # of the runs that are finished

Features that are not in the cache are computed by the first run: ``iirc features compute`` does it
ahead, so that the table's times do not contain it.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measured_table import (
    COSTS_NAME,
    Data,
    MeasuredTable,
    Row,
    RunsFolder,
    WriteTable,
)
from benchmarks.results import ROOT
from iirc_data.console import run_tool
from iirc_train.report.summary import spread
from iirc_train.run.directory import read_metrics
from iirc_train.run.results import read_results

BENCHMARKS = {"cil_cifar100_b0_10": "top-1", "iirc_cifar100": "pw-JS"}
METHODS = {
    "SimpleCIL": "simplecil",
    "SLDA": "slda",
    "RanPAC, M = 2,000": "ranpac --ranpac-features 2000",
    "FeCAM": "fecam",
    "RanPAC, M = 10,000": "ranpac",
}
ORDERS = (0, 1, 2)

TABLE = MeasuredTable(
    program="benchmarks.frozen_on_cifar100",
    page=ROOT / "docs" / "results_frozen.md",
    kept=ROOT / "docs" / "results_frozen",
    options="--network efficientnet_lite0 --weights default --threads 1",
    rows=tuple(
        Row(f"{name}, {benchmark}", f"--benchmark {benchmark} --method {method}", schedules=ORDERS)
        for name, method in METHODS.items()
        for benchmark in BENCHMARKS
        if not (method == "fecam" and benchmark == "iirc_cifar100")  # it has no multi-label form
    ),
    shards="shards/cifar100",
)


def main(runs: RunsFolder, data: Data = None, table: WriteTable = False) -> None:
    """Train the methods, or write the table of the runs that are finished."""
    TABLE.run(runs, data, table, _lines)


def _lines(finished: dict[Row, list[Path]]) -> Iterator[str]:
    for benchmark, title in BENCHMARKS.items():
        yield f"\n`{benchmark}`:\n"
        yield f"| | orders | {title}: last | average | time (s) | peak memory (GB) | state (MB) |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for row, folders in finished.items():
            if row.name.endswith(f", {benchmark}"):
                yield _line(row.name.removesuffix(f", {benchmark}"), folders)


def _line(name: str, folders: list[Path]) -> str:
    scores = [100 * read_results(folder).all_seen for folder in folders]
    state = [of_task.get("statistics_bytes", 0) for run in folders for of_task in read_metrics(run)]
    # an interrupted run has no costs
    files = [file for folder in folders if (file := folder / COSTS_NAME).exists()]
    costs = [json.loads(file.read_text()) for file in files]
    seconds = median(of_run["seconds"] for of_run in costs) if costs else math.nan
    peak = max((of_run["peak_memory_bytes"] for of_run in costs), default=math.nan)
    cells = (
        spread([of_run[-1] for of_run in scores]).text(digits=1),
        spread([of_run.mean() for of_run in scores]).text(digits=1),
        f"{seconds:.0f}",
        f"{peak / 1e9:.1f}",
        f"{max(state) / 1e6:.0f}",
    )
    return f"| {name} | {len(folders)} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    run_tool(main)
