"""Trains replay on IIRC-CIFAR100 with one thing changed at a time, and writes the table.

    python -m benchmarks.weak_replay RUNS --data SHARDS    # one run after the other
    python -m benchmarks.weak_replay RUNS --table          # of the runs that are finished

Calling the first command again resumes the interrupted run and skips finished ones.
"""

from functools import partial

from benchmarks.measured_table import Data, MeasuredTable, Row, RunsFolder, WriteTable, last_scores
from benchmarks.results import ROOT
from iirc_data.console import run_tool
from iirc_train.metrics import MAIN_METRIC

SHORT = "--precision bf16 --epochs-per-task 6 --first-task-epochs 12 --lr-schedule 4"
LONG = "--precision fp32 --epochs-per-task 24 --first-task-epochs 48 --lr-schedule 16"
CHANGES = {
    "replay": SHORT,
    "memories weigh 10 times as much": f"{SHORT} --memory-strength 10",
    "thresholds fitted to the memories": f"{SHORT} --calibrate-thresholds",
    "100 memories per class": f"{SHORT} --n-memories-per-class 100",
    "weight 10 and fitted thresholds": f"{SHORT} --memory-strength 10 --calibrate-thresholds",
    "4 times as many epochs, fp32": LONG,
}
TABLE = MeasuredTable(
    program="benchmarks.weak_replay",
    page=ROOT / "docs" / "weak_replay.md",
    kept=ROOT / "docs" / "results_weak_replay",
    options=(
        "--network resnet8 --no-reduce-lr-on-plateau --no-use-best-model --seed 1 --threads 1"
    ),
    rows=tuple(
        Row(name, f"--preset cifar100-finetune-20 {change}") for name, change in CHANGES.items()
    ),
    shards="shards/cifar100",
)
LAST = {
    MAIN_METRIC: "pw-JS",
    "hierarchical_precision": "hierarchical precision",
    "hierarchical_recall": "recall",
    "level_0_accuracy": "accuracy of superclasses",
    "level_1_accuracy": "of subclasses",
}


def main(runs: RunsFolder, data: Data = None, table: WriteTable = False) -> None:
    """Train the runs, or write the table of those that are finished."""
    TABLE.run(runs, data, table, partial(last_scores, metrics=LAST))


if __name__ == "__main__":
    run_tool(main)
