"""Trains every method on class-incremental CIFAR-100 with a reduced budget, and writes the table.

    python -m benchmarks.methods_on_cifar100 RUNS --data SHARDS    # one run after the other
    python -m benchmarks.methods_on_cifar100 RUNS --table          # of the runs that are finished

Calling the first command again resumes the interrupted run and skips finished ones.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.method_runs import replace_part, start_or_resume
from benchmarks.results import ROOT
from iirc_data.console import errors_in_one_line
from iirc_data.errors import ConfigurationError
from iirc_data.locks import sole_user
from iirc_train.config.plain_yaml import read_settings, settings_text
from iirc_train.methods import METHODS
from iirc_train.metrics import TOP1
from iirc_train.run.directory import CONFIG_NAME, METRICS_NAME
from iirc_train.run.record import is_finished
from iirc_train.run.results import read_results

DOCUMENT = ROOT / "docs" / "results_cifar100.md"
KEPT = ROOT / "docs" / "results_cifar100"  # settings and metrics of the finished runs
B0, B50 = "cil_cifar100_b0_10", "cil_cifar100_b50_10"
COMMON = (
    "--network resnet20 --epochs-per-task 4 --batch-size 32 --optimizer sgd --lr 0.03 --lr-cosine "
    "--weight-decay 5e-4 --precision bf16 --threads 1"
)
MEMORIES = "--n-memories-per-class -1 --total-n-mems 2000"
FIRST_ORDER, FURTHER_ORDERS = 0, (1, 2)  # schedules of the benchmarks; 0 is the order of seed 1993


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: Name in the table.
        method: The method's registered name.
        options: Options beside :data:`COMMON`.
        benchmark: Name of the benchmark.
        further_orders: Whether it is measured in :data:`FURTHER_ORDERS`, too.
        published: Last and average top-1 at full budget, in per cent: read off the figure of
            CIFAR-100 B0, 10 steps, in the README of PyCIL f3509b8, to about ±1. None if the
            figure does not show it.
    """

    name: str
    method: str
    options: str = MEMORIES
    benchmark: str = B0
    further_orders: bool = False
    published: tuple[int, int] | None = None

    @property
    def orders(self) -> tuple[int, ...]:
        """The schedules in which it is measured."""
        return (FIRST_ORDER, *(FURTHER_ORDERS if self.further_orders else ()))

    def folder(self, runs: Path, order: int) -> Path:
        """Return the folder of a run."""
        name = re.sub(r"[^a-z0-9+]+", "_", self.name.lower()).strip("_")
        return runs / name / f"order_{order}"

    def command(self, order: int, shards: str, output: str) -> str:
        """Return the command of a run."""
        parts = [
            f"iirc train --benchmark {self.benchmark} {COMMON} --method {self.method}",
            self.options,
            f"--schedule {order} --data {shards} --output {output}",
        ]
        return " ".join(part for part in parts if part)


ROWS = (
    Row("finetune", "finetune", "", further_orders=True),
    Row("ER", "er", further_orders=True),
    Row("joint", "finetune", "--joint", further_orders=True),
    Row("iCaRL", "icarl", further_orders=True, published=(49, 64)),
    Row("DER++", "der_plus_plus", further_orders=True),
    Row("finetune with memories", "finetune", published=(41, 59)),
    Row("iCaRL-CNN", "icarl_cnn"),
    Row("WA", "wa", published=(52, 67)),
    Row("LUCIR", "lucir"),
    Row("A-GEM", "agem"),
    Row("ER-ACE", "er_ace"),
    Row("DER", "der"),
    Row("BiC", "bic", published=(51, 65)),
    Row("PODNet, B50", "podnet", benchmark=B50),
    Row("LwF", "lwf", ""),
    Row("LwF-MC", "lwf_mc", ""),
    Row("online EWC", "ewc_online", ""),
    Row("SI", "si", ""),
    Row("GDumb", "gdumb"),
    Row("iCaRL-norm", "icarl_norm"),
    Row("masked replay", "mask_seen_classes"),
    Row("FOSTER", "foster", published=(61, 73)),
    Row("DER (expandable)", "der_expandable", published=(58, 70)),
)


def main(
    runs: Annotated[Path, typer.Argument(help="Folder for the runs, outside the checkout.")],
    data: Annotated[Path | None, typer.Option(help="Shard folder of CIFAR-100; trains.")] = None,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Write the table of finished runs into the page, with those kept before.",
        ),
    ] = False,
) -> None:
    """Train all registered methods, or write the table of the runs that are finished."""
    with errors_in_one_line():
        if data is None and not table:
            raise ConfigurationError("nothing to do: give --data SHARDS to train, or --table")
        if data is not None:
            with sole_user(runs):
                _train(runs, data)
        if table:
            _keep(runs)
            lines = list(_tables())
            replace_part(DOCUMENT, "benchmarks.methods_on_cifar100", lines)
            print("\n".join(lines))


def _train(runs: Path, data: Path) -> None:
    console = Console(stderr=True)
    failed = 0
    queue = [(row, order) for row in ROWS for order in row.orders]
    for row, order in queue:
        if row.method not in METHODS:
            console.print(f"{row.name}: method {row.method!r} is not registered")
            continue
        folder = row.folder(runs, order)
        try:
            if not is_finished(folder):
                line = row.command(order, shlex.quote(str(data)), shlex.quote(str(folder)))
                start_or_resume(line, folder)
        except ConfigurationError as error:
            failed += 1
            console.print(f"{row.name}, order {order}: {error}")
            continue
        console.print(f"{row.name}, order {order}: {_top1(folder).round(3)}")
    if failed:
        raise ConfigurationError(f"{failed} runs failed: the lines above say why")


def _keep(runs: Path) -> None:
    """Copy the settings and metrics of finished runs beside the page, which has all rows."""
    for row in ROWS:
        for order in row.orders:
            source, target = row.folder(runs, order), row.folder(KEPT, order)
            if is_finished(source):
                target.mkdir(parents=True, exist_ok=True)
                settings = read_settings(source / CONFIG_NAME) | {"data": "shards"}
                (target / CONFIG_NAME).write_bytes(settings_text(settings))
                shutil.copyfile(source / METRICS_NAME, target / METRICS_NAME)


def _tables() -> Iterator[str]:
    yield "| | orders | last | average | PyCIL: last | PyCIL: average |"
    yield "|---|---:|---:|---:|---:|---:|"
    finished = {
        row: [o for o in row.orders if (row.folder(KEPT, o) / METRICS_NAME).exists()]
        for row in ROWS
    }
    for row, orders in finished.items():
        if orders:
            scores = [100 * _top1(row.folder(KEPT, order)) for order in orders]
            last = _cell([s[-1] for s in scores])
            average = _cell([s.mean() for s in scores])
            published = " | ".join(map(str, row.published or ("", "")))
            yield f"| {row.name} | {len(orders)} | {last} | {average} | {published} |"
    yield "\nThe command of each row:\n"
    yield "```sh"
    for row, orders in finished.items():
        for order in orders:
            folder = row.folder(Path("runs"), order)
            yield row.command(order, "shards/cifar100", str(folder))
    yield "```"


def _top1(folder: Path) -> NDArray[np.float64]:
    """Return the accuracy over all classes seen so far, after each task."""
    return read_results(folder, metric=TOP1).all_seen


def _cell(values: list[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    typer.run(main)
