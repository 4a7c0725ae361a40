"""Trains the methods of the paper on IIRC-CIFAR100 with a short budget, and writes the tables.

    python -m benchmarks.iirc_on_cifar100 RUNS --data SHARDS    # one run after the other
    python -m benchmarks.iirc_on_cifar100 RUNS --table          # of the runs that are finished

Calling the first command again resumes the interrupted run and skips finished ones. The budget is
that at which the published code was measured: one table is the paper's experiment, the other
compares the two codes. A third one, in docs/reproducing.md, has the paper's curves beside ours.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measured_table import (
    Data,
    MeasuredTable,
    Row,
    RunsFolder,
    WriteTable,
    schedule_of,
)
from benchmarks.method_runs import replace_part
from benchmarks.results import ROOT
from iirc_data.console import run_tool
from iirc_train.report.paper import paper_curves
from iirc_train.report.summary import spread
from iirc_train.run.results import PWJS, read_results

BENCHMARK = "iirc_cifar100"
SCHEDULES = (0, 1, 2)
SECOND_SEED = ", seed 2"
IN_FP32 = ("finetune", "icarl_cnn-20")
"""Trained in fp32 on schedule 2, by a processor without bf16 arithmetic."""

PAPER = {
    "finetune-20": "ER",
    "icarl_cnn-20": "iCaRL-CNN",
    "icarl_norm-20": "iCaRL-norm",
    "lucir-20": "LUCIR",
    "finetune": "finetune",
    "infinite_buffer": "ER, infinite buffer",
    "joint": "joint",
    "incremental_joint": "incremental joint",
}
"""The paper's name of each curve that its figures show to the end."""

TASKS = (0, 1, 5, 10, 21)
CURVES = ROOT / "docs" / "reproducing.md"
PUBLISHED_CODE = Path(__file__).with_name("published_code_on_cifar100.json")


def _row(
    name: str,
    options: str = "",
    schedules: tuple[int, ...] = (0,),
    seed: int = 1,
    precision: str = "bf16",
) -> Row:
    preset, *_ = name.split(",")
    options = f"--preset cifar100-{preset} {options}".strip()
    return Row(name, f"{options} --seed {seed} --precision {precision}", schedules=schedules)


ROWS = (
    _row("finetune-20", schedules=SCHEDULES),
    _row("icarl_cnn-20", schedules=SCHEDULES),
    _row("icarl_norm-20", schedules=SCHEDULES),
    _row("lucir-20", schedules=SCHEDULES),
    _row("finetune", schedules=SCHEDULES),
    _row("lucir-20, lr 0.1", "--lr 0.1"),
    _row("agem-20-lr1"),
    _row("joint"),
    _row("icarl_cnn-20, HCV", "--hcv both"),
    _row(f"finetune-20{SECOND_SEED}", seed=2),
    _row(f"icarl_cnn-20{SECOND_SEED}", seed=2),
    _row(f"agem-20-lr1{SECOND_SEED}", seed=2),
    _row("finetune-20, fp32", precision="fp32"),
    *(_row(f"{name}, fp32", schedules=(2,), precision="fp32") for name in IN_FP32),
    _row("agem-20-lr0.5"),
    _row("finetune-50"),
    _row("finetune-100"),
    _row("finetune-200"),
    _row("infinite_buffer"),
    _row("incremental_joint"),
)
TABLE = MeasuredTable(
    program="benchmarks.iirc_on_cifar100",
    page=ROOT / "docs" / "results_iirc_cifar100.md",
    kept=ROOT / "docs" / "results_iirc_cifar100",
    options=(
        "--network resnet8 --epochs-per-task 6 --first-task-epochs 12 --lr-schedule 4 "
        "--no-reduce-lr-on-plateau --threads 1"
    ),
    rows=ROWS,
    shards="shards/cifar100",
)


def main(runs: RunsFolder, data: Data = None, table: WriteTable = False) -> None:
    """Train the methods, or write the tables of the runs that are finished."""
    TABLE.run(runs, data, table, _lines)
    if table:
        replace_part(CURVES, TABLE.program, _preset_table(_curves(TABLE.finished())))


def _curves(finished: dict[Row, list[Path]]) -> dict[str, list[np.ndarray]]:
    return {
        row.name: [read_results(folder).all_seen for folder in folders]
        for row, folders in finished.items()
    }


def _lines(finished: dict[Row, list[Path]]) -> Iterator[str]:
    curves = _curves(finished)
    schedules = {
        row.name: ", ".join(str(schedule_of(folder)) for folder in folders)
        for row, folders in finished.items()
    }
    yield from _paper_table(curves, schedules)
    yield "\n### The published code at the same budget\n"
    yield from _code_table(curves)


def _paper_table(curves: dict[str, list[np.ndarray]], schedules: dict[str, str]) -> Iterator[str]:
    yield "| | schedules | " + " | ".join(f"task {task}" for task in TASKS) + " | paper, task 21 |"
    yield "|---|---:|" + "---:|" * (len(TASKS) + 1)
    for name, scores in curves.items():
        if name.endswith(SECOND_SEED):
            continue
        if name == "joint":  # has a single task
            cells = [""] * (len(TASKS) - 1) + [spread([s[0] for s in scores]).text(digits=3)]
        else:
            cells = [spread([s[task] for s in scores]).text(digits=3) for task in TASKS]
        full = _paper_cell(name, TASKS[-1]) if name in PAPER else ""
        yield f"| {name} | {schedules[name]} | " + " | ".join([*cells, full]) + " |"


def _preset_table(curves: dict[str, list[np.ndarray]]) -> Iterator[str]:
    """A row for each preset: the paper's scores, and ours at the short budget."""
    later = TASKS[1:]
    yield "| preset | " + " | ".join(f"task {task}" for task in later) + " | ours, short budget |"
    yield "|---|" + "---:|" * (len(later) + 1)
    for row in ROWS:
        if "," in row.name:  # changes more than the budget
            continue
        cells = [_paper_cell(row.name, task) for task in later]
        ours = [s[-1] for s in curves.get(row.name, [])]
        text = spread(ours).text(digits=3) if ours else "not trained yet"
        yield f"| `cifar100-{row.name}` | " + " | ".join([*cells, text]) + " |"


def _paper_cell(name: str, task: int) -> str:
    """The paper's score of a row after a task, or why there is none."""
    if name not in PAPER:
        return "rate not stated" if name.startswith("agem") else "not shown"
    curves = paper_curves(BENCHMARK, PWJS)
    (scores,) = (curve.scores for curve in curves if curve.name == PAPER[name])
    if len(scores) == 1:  # joint training
        return f"{scores[0]:.2f}" if task == TASKS[-1] else "one task"
    return "hidden" if np.isnan(scores[task]) else f"{scores[task]:.2f}"


def _code_table(curves: dict[str, list[np.ndarray]]) -> Iterator[str]:
    published = json.loads(PUBLISHED_CODE.read_text())["curves"]
    n_tasks = max(len(curve) for seeds in published.values() for curve in seeds.values())
    yield "| | seed | code | " + " | ".join(f"task {task}" for task in range(n_tasks)) + " |"
    yield "|---|---:|---|" + "---:|" * n_tasks
    for name, seeds in published.items():
        for seed, theirs in seeds.items():
            of_seed = f"{name}{SECOND_SEED}" if seed == "2" else name
            lines = {"published": theirs}
            if of_seed in curves:
                lines["this project"] = curves[of_seed][0][: len(theirs)]
            for code, curve in lines.items():
                cells = [f"{score:.3f}" for score in curve] + [""] * (n_tasks - len(curve))
                yield f"| {name} | {seed} | {code} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    run_tool(main)
