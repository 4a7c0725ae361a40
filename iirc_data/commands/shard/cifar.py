"""``iirc data shard cifar``: CIFAR-10 or CIFAR-100, which become PNG images."""

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
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.console import plain_console, shown
from iirc_data.sources import open_cifar
from iirc_data.sources.cifar_layouts import CIFAR_LAYOUTS, CifarLayout
from iirc_data.sources.download import download

IMAGES_OF_ALL_CLASSES = {"train": 50_000, "test": 10_000}


class Dataset(StrEnum):
    """The two datasets."""

    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"


def shard_cifar(
    source: Annotated[
        Path,
        typer.Argument(
            resolve_path=True,
            help="Folder cifar-100-python or cifar-10-batches-py, its .tar.gz, or a folder that "
            "holds one of these.",
        ),
    ],
    out: options.Out,
    dataset: Annotated[
        Dataset | None, typer.Option(help="Which of the two, if SOURCE may hold both.")
    ] = None,
    download_first: Annotated[
        bool,
        typer.Option(
            "--download",
            help="First download the .tar.gz into the folder SOURCE, or resume an interrupted "
            "download. Needs --dataset.",
        ),
    ] = False,
    classes: options.Classes = None,
    benchmark: options.BenchmarkName = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    max_shard_size: options.MaxShardSize = options.MAX_SHARD_SIZE,
    dali_index: options.DaliIndex = False,
) -> None:
    """Turn CIFAR-10 or CIFAR-100 into per-class tar shards of PNG images.

    For CIFAR-100, its superclasses (the coarse labels) are written beside them.
    """
    if download_first and dataset is None:
        raise typer.BadParameter("--download needs --dataset cifar10 or cifar100")
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        if download_first and dataset is not None:
            download_with_progress(CIFAR_LAYOUTS[dataset], source)
        whole = open_cifar(source, dataset)
        raw = select(whole, classes=classes, benchmark=chosen)
        how = WriteOptions(workers, scheduler, max_shard_size, dali_index=dali_index)
        manifest = write(raw, out, how, whole.taxonomy())
        share = len(manifest.classes) / len(whole.class_names)
        expected = {split: round(n * share) for split, n in IMAGES_OF_ALL_CLASSES.items()}
        summarise(out, manifest, expected=expected, benchmark=chosen)


def download_with_progress(layout: CifarLayout, folder: Path) -> None:
    """Download a dataset's archive into a folder, unless it is already there.

    Raises:
        SourceError: The download fails, or the file is not the published one.
    """
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with shown(Progress(*columns, console=plain_console(stderr=True))) as display:
        task = display.add_task(layout.archive, total=None)
        download(
            layout.url,
            folder / layout.archive,
            layout.sha256,
            lambda done, total: display.update(task, completed=done, total=total),
        )
