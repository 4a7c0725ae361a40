"""Turn CIFAR-10 or CIFAR-100 into per-class tar shards of PNG images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from iirc_data.benchmarks import load_benchmark
from iirc_data.console import plain_console, run_tool
from iirc_data.sources import open_cifar
from iirc_data.sources.cifar import CIFAR_LAYOUTS, CifarLayout
from iirc_data.sources.download import download
from tools import sharding
from tools.summary import summarise

IMAGES_OF_ALL_CLASSES = {"train": 50_000, "test": 10_000}


class Dataset(StrEnum):
    """The two datasets."""

    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"


def download_with_progress(layout: CifarLayout, folder: Path) -> None:
    """Download a dataset's archive into a folder, unless it is there.

    Raises:
        SourceError: It cannot be had, or is not what was published.
    """
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=plain_console(stderr=True)) as display:
        task = display.add_task(layout.archive, total=None)
        download(
            layout.url,
            folder / layout.archive,
            layout.sha256,
            lambda done, total: display.update(task, completed=done, total=total),
        )


def main(
    source: Annotated[
        Path,
        typer.Argument(
            resolve_path=True,
            help="Folder cifar-100-python or cifar-10-batches-py, its .tar.gz, or the folder that "
            "holds it.",
        ),
    ],
    out: sharding.Out,
    dataset: Annotated[
        Dataset | None, typer.Option(help="Which of the two, where SOURCE does not say it.")
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Download the .tar.gz into the folder SOURCE first; goes on with an interrupted "
            "download. Needs --dataset.",
        ),
    ] = False,
    classes: sharding.Classes = None,
    benchmark: sharding.BenchmarkName = None,
    workers: sharding.Workers = 1,
    scheduler: sharding.Scheduler = None,
    max_shard_size: sharding.MaxShardSize = sharding.MAX_SHARD_SIZE,
    dali_index: sharding.DaliIndex = False,
) -> None:
    """Turn CIFAR-10 or CIFAR-100 into per-class tar shards of PNG images."""
    if download and dataset is None:
        raise typer.BadParameter("--download needs --dataset cifar10 or cifar100")
    with sharding.told_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        if download and dataset is not None:
            download_with_progress(CIFAR_LAYOUTS[dataset], source)
        whole = open_cifar(source, dataset)
        raw = sharding.select(whole, classes=classes, benchmark=chosen)
        manifest = sharding.write(
            raw, out, sharding.Options(workers, scheduler, max_shard_size, dali_index=dali_index)
        )
        share = len(manifest.classes) / len(whole.class_names)
        expected = {split: round(n * share) for split, n in IMAGES_OF_ALL_CLASSES.items()}
        summarise(out, manifest, expected=expected, benchmark=chosen)


if __name__ == "__main__":
    run_tool(main)
