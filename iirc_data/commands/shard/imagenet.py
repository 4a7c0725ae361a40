"""``iirc data shard imagenet``: ImageNet 2012, from folders or from the original tars."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select, selected_classes
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.sources import open_imagenet, open_imagenet_tars
from iirc_data.sources.imagenet import DEVKIT, TRAIN_TAR, VAL_TAR

N_CLASSES = 1_000
TRAINING_IMAGES_OF_ALL_CLASSES = 1_281_167
VALIDATION_IMAGES_PER_CLASS = 50


def shard_imagenet(
    source: Annotated[
        Path,
        typer.Argument(
            resolve_path=True,
            help=f"Folder with train/ and val/, or with {TRAIN_TAR}, {VAL_TAR} and {DEVKIT}.",
        ),
    ],
    out: options.Out,
    train_tar: Annotated[
        Path | None,
        typer.Option(resolve_path=True, help=f"{TRAIN_TAR}, if it is not in SOURCE."),
    ] = None,
    val_tar: Annotated[
        Path | None, typer.Option(resolve_path=True, help=f"{VAL_TAR}, if it is not in SOURCE.")
    ] = None,
    devkit: Annotated[
        Path | None, typer.Option(resolve_path=True, help=f"{DEVKIT}, if it is not in SOURCE.")
    ] = None,
    classes: options.Classes = None,
    benchmark: options.BenchmarkName = None,
    resize: options.Resize = None,
    quality: options.Quality = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    max_shard_size: options.MaxShardSize = options.MAX_SHARD_SIZE,
    check_decode: options.CheckDecode = False,
    dali_index: options.DaliIndex = False,
) -> None:
    """Turn ImageNet 2012 into per-class tar shards: from folders, or from the original tars."""
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        names = frozenset().union(*selected_classes(classes, chosen)) or None
        whole = (
            open_imagenet_tars(
                train_tar or source / TRAIN_TAR,
                val_tar or source / VAL_TAR,
                devkit or source / DEVKIT,
                names,
            )
            if train_tar or val_tar or devkit
            else open_imagenet(source, names)
        )
        raw = select(whole, classes=classes, benchmark=chosen, resize=resize, quality=quality)
        how = WriteOptions(workers, scheduler, max_shard_size, check_decode, dali_index)
        manifest = write(raw, out, how)
        expected = {"val": VALIDATION_IMAGES_PER_CLASS * len(manifest.classes)}
        if len(manifest.classes) == N_CLASSES:
            expected["train"] = TRAINING_IMAGES_OF_ALL_CLASSES
        summarise(out, manifest, expected=expected, benchmark=chosen)
