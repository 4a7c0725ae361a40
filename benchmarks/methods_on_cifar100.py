"""Trains every method on class-incremental CIFAR-100 with a reduced budget, and writes the table.

    python -m benchmarks.methods_on_cifar100 RUNS --data SHARDS    # one run after the other
    python -m benchmarks.methods_on_cifar100 RUNS --table          # of the runs that are finished

Calling the first command again resumes the interrupted run and skips finished ones.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measured_table import Data, MeasuredTable, Row, RunsFolder, WriteTable
from benchmarks.results import ROOT
from iirc_data.console import run_tool
from iirc_train.metrics import TOP1
from iirc_train.report.summary import spread
from iirc_train.run.results import read_results

B0, B50 = "--benchmark cil_cifar100_b0_10", "--benchmark cil_cifar100_b50_10"
MEMORIES = "--n-memories-per-class -1 --total-n-mems 2000"
ORDERS = (0, 1, 2)  # schedules of the benchmarks; 0 is the order of seed 1993

ROWS = (
    Row("finetune", f"{B0} --method finetune", schedules=ORDERS),
    Row("ER", f"{B0} --method er {MEMORIES}", schedules=ORDERS),
    Row("joint", f"{B0} --method finetune --joint", schedules=ORDERS),
    Row("iCaRL", f"{B0} --method icarl {MEMORIES}", schedules=ORDERS, published=(49, 64)),
    Row("DER++", f"{B0} --method der_plus_plus {MEMORIES}", schedules=ORDERS),
    Row("finetune with memories", f"{B0} --method finetune {MEMORIES}", published=(41, 59)),
    Row("iCaRL-CNN", f"{B0} --method icarl_cnn {MEMORIES}"),
    Row("WA", f"{B0} --method wa {MEMORIES}", published=(52, 67)),
    Row("LUCIR", f"{B0} --method lucir {MEMORIES}"),
    Row("A-GEM", f"{B0} --method agem {MEMORIES}"),
    Row("ER-ACE", f"{B0} --method er_ace {MEMORIES}"),
    Row("DER", f"{B0} --method der {MEMORIES}"),
    Row("BiC", f"{B0} --method bic {MEMORIES}", published=(51, 65)),
    Row("PODNet, B50", f"{B50} --method podnet {MEMORIES}"),
    Row("LwF", f"{B0} --method lwf"),
    Row("LwF-MC", f"{B0} --method lwf_mc"),
    Row("online EWC, λ = 5", f"{B0} --method ewc_online --ewc-lambda 5"),
    Row("SI, c = 0.025", f"{B0} --method si --si-c 0.025"),
    Row("GDumb", f"{B0} --method gdumb {MEMORIES}"),
    Row("iCaRL-norm", f"{B0} --method icarl_norm {MEMORIES}"),
    Row("masked replay", f"{B0} --method mask_seen_classes {MEMORIES}"),
    Row("FOSTER", f"{B0} --method foster --compression-epochs 3 {MEMORIES}", published=(61, 73)),
    Row("DER (expandable)", f"{B0} --method der_expandable {MEMORIES}", published=(58, 70)),
)

TABLE = MeasuredTable(
    program="benchmarks.methods_on_cifar100",
    page=ROOT / "docs" / "results_cifar100.md",
    kept=ROOT / "docs" / "results_cifar100",
    options=(
        "--network resnet20 --epochs-per-task 4 --batch-size 32 --optimizer sgd --lr 0.03 "
        "--lr-cosine --weight-decay 5e-4 --precision bf16 --threads 1"
    ),
    rows=ROWS,
    shards="shards/cifar100",
)
"""Published numbers: last and average top-1 at full budget, in per cent, read off the figure of
CIFAR-100 B0, 10 steps, in the README of PyCIL f3509b8, to about ±1."""


def main(runs: RunsFolder, data: Data = None, table: WriteTable = False) -> None:
    """Train all methods, or write the table of the runs that are finished."""
    TABLE.run(runs, data, table, _lines)


def _lines(finished: dict[Row, list[Path]]) -> Iterator[str]:
    yield "| | orders | last | average | PyCIL: last | PyCIL: average |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row, folders in finished.items():
        scores = [100 * read_results(folder, metric=TOP1).all_seen for folder in folders]
        last = spread([s[-1] for s in scores]).text(digits=1)
        average = spread([s.mean() for s in scores]).text(digits=1)
        published = " | ".join(map(str, row.published or ("", "")))
        yield f"| {row.name} | {len(folders)} | {last} | {average} | {published} |"


if __name__ == "__main__":
    run_tool(main)
