"""Trains every method on CIFAR-10 in one to two hours, and writes the table.

    python -m benchmarks.methods_on_cifar10 train SHARDS RUNS
    python -m benchmarks.methods_on_cifar10 table RUNS docs/results_cifar10.md

Calling ``train`` again resumes interrupted runs. ``table`` keeps the other text of the document.
"""

import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.method_runs import NamedRun, check_made_by, replace_part, train_all
from iirc_data.console import errors_in_one_line
from iirc_train.run.results import PWJS, read_results

SCHEDULES = (0, 1, 2)
COMMON = (
    "--benchmark iirc_cifar10 --samples-per-class 500 --n-layers 20 --epochs-per-task 6 "
    "--batch-size 64 --lr 0.1 --lr-schedule 4 --precision bf16 --threads 1"
)
MEMORIES = "--n-memories-per-class 20"
REPLAY = f"{MEMORIES} --memory-strength 10"
ROWS = {
    "joint": "--method finetune --joint",
    "incremental joint": "--method finetune --incremental-joint",
    "iCaRL-CNN": f"--method icarl_cnn {REPLAY}",
    "iCaRL-norm": f"--method icarl_norm {REPLAY}",
    "iCaRL": f"--method icarl {REPLAY}",
    "LUCIR": f"--method lucir {MEMORIES}",
    "masked replay": f"--method mask_seen_classes {REPLAY}",
    "replay": f"--method finetune {MEMORIES}",
    "A-GEM": f"--method agem {REPLAY}",
    "finetuning": "--method finetune",
}
METRICS = {"pw-JS": PWJS, "JS": "jaccard_sim"}

app = typer.Typer(add_completion=False, help=__doc__)


def run_folder(runs: Path, row: str, schedule: int) -> Path:
    """Return the folder of a run."""
    return runs / row.replace(" ", "_").lower() / f"schedule_{schedule}"


def command(row: str, schedule: int, shards: str, output: str) -> str:
    """Return the command of a run."""
    return (
        f"iirc train {COMMON} {ROWS[row]} --schedule {schedule} --data {shards} --output {output}"
    )


@app.command()
def train(
    shards: Annotated[Path, typer.Argument(help="Shard folder of CIFAR-10.")],
    runs: Annotated[Path, typer.Argument(help="Folder for the runs.")],
    processes: Annotated[int, typer.Option(min=1, help="Number of parallel runs.")] = 2,
) -> None:
    """Train all methods on all schedules; finished runs are skipped."""
    queue = []
    for schedule, row in product(SCHEDULES, ROWS):
        folder = run_folder(runs, row, schedule)
        line = command(row, schedule, shlex.quote(str(shards)), shlex.quote(str(folder)))
        queue.append(NamedRun(f"{row}, schedule {schedule}", line, folder))
    train_all(queue, runs, shards, at_once=processes)


@app.command()
def table(
    runs: Annotated[Path, typer.Argument(help="Folder of the runs.")],
    document: Annotated[Path, typer.Argument(help="Markdown file whose tables are replaced.")],
) -> None:
    """Write mean and standard deviation over schedules into a document."""
    for row, schedule in product(ROWS, SCHEDULES):
        folder = run_folder(runs, row, schedule)
        check_made_by(command(row, schedule, "shards", "run"), folder)
    replace_part(document, "benchmarks.methods_on_cifar10", _tables(runs))


def _tables(runs: Path) -> Iterator[str]:
    for title, metric in METRICS.items():
        rows = {
            row: np.stack(
                [read_results(run_folder(runs, row, s), metric=metric).all_seen for s in SCHEDULES]
            )
            for row in ROWS
        }
        n_tasks = max(scores.shape[1] for scores in rows.values())
        yield f"{title} on the test split, all classes seen so far, after each task:\n"
        yield "| |" + "".join(f" {task} |" for task in range(n_tasks))
        yield "|---|" + "---|" * n_tasks
        for row, scores in rows.items():
            cells = [f"{of_task.mean():.3f} ± {of_task.std(ddof=1):.3f}" for of_task in scores.T]
            missing = [""] * (n_tasks - len(cells))
            # joint training has a single task, shown below the last one of the others
            cells = missing + cells if row == "joint" else cells + missing
            yield f"| {row} | " + " | ".join(cells) + " |"
        yield ""


if __name__ == "__main__":
    with errors_in_one_line():
        app()
