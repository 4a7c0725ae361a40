"""Trains methods on CIFAR-100 in three levels with a reduced budget, and writes the table.

    python -m benchmarks.hierarchy_on_cifar100 RUNS --data SHARDS    # one run after the other
    python -m benchmarks.hierarchy_on_cifar100 RUNS --table          # of the runs that are finished

Calling the first command again resumes the interrupted run and skips finished ones.
"""

from functools import partial

from benchmarks.measured_table import Data, MeasuredTable, Row, RunsFolder, WriteTable, last_scores
from benchmarks.results import ROOT
from iirc_data.console import run_tool
from iirc_train.metrics import MAIN_METRIC, level_name

METHODS = {
    "finetune": "replay",
    "icarl_cnn": "iCaRL-CNN",
    "icarl_norm": "iCaRL-norm",
    "lucir": "LUCIR",
}
HCV = {"": "", ", HCV": " --hcv both --hcv-superclass deepest"}
TABLE = MeasuredTable(
    program="benchmarks.hierarchy_on_cifar100",
    page=ROOT / "docs" / "results_three_levels.md",
    kept=ROOT / "docs" / "results_three_levels",
    options=(
        "--network resnet8 --n-memories-per-class 20 --epochs-per-task 6 --batch-size 128 "
        "--optimizer momentum --lr 1 --lr-schedule 4 --weight-decay 1e-5 --threads 1"
    ),
    rows=tuple(
        Row(name + suffix, f"--benchmark iirc3_cifar100 --method {method}{options}")
        for method, name in METHODS.items()
        for suffix, options in HCV.items()
    ),
    shards="shards/cifar100",
)
COLUMNS = {
    MAIN_METRIC: "pw-JS",
    **{level_name(MAIN_METRIC, level): f"level {level}" for level in range(3)},
    "hierarchical_f1": "hierarchical F1",
    "superclass_consistency": "superclass consistency",
    "ancestor_precision": "ancestors: precision",
    "ancestor_recall": "recall",
}


def main(runs: RunsFolder, data: Data = None, table: WriteTable = False) -> None:
    """Train the methods, or write the table of the runs that are finished."""
    TABLE.run(runs, data, table, partial(last_scores, metrics=COLUMNS))


if __name__ == "__main__":
    run_tool(main)
