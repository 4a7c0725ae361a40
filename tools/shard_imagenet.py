"""Turn ImageNet 2012 into per-class tar shards: from folders, or from the original tars."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.console import run_tool
from iirc_data.sources import open_imagenet, open_imagenet_tars
from iirc_data.sources.imagenet import DEVKIT, TRAIN_TAR, VAL_TAR
from tools import sharding
from tools.summary import summarise

N_CLASSES = 1_000
TRAINING_IMAGES_OF_ALL_CLASSES = 1_281_167
VALIDATION_IMAGES_PER_CLASS = 50


def main(
    source: Annotated[
        Path,
        typer.Argument(
            resolve_path=True,
            help=f"Folder with train/ and val/, or with {TRAIN_TAR}, {VAL_TAR} and {DEVKIT}.",
        ),
    ],
    out: sharding.Out,
    train_tar: Annotated[
        Path | None,
        typer.Option(resolve_path=True, help=f"{TRAIN_TAR}, where it is not in SOURCE."),
    ] = None,
    val_tar: Annotated[
        Path | None, typer.Option(resolve_path=True, help=f"{VAL_TAR}, where it is not in SOURCE.")
    ] = None,
    devkit: Annotated[
        Path | None, typer.Option(resolve_path=True, help=f"{DEVKIT}, where it is not in SOURCE.")
    ] = None,
    classes: sharding.Classes = None,
    benchmark: sharding.BenchmarkName = None,
    resize: sharding.Resize = None,
    quality: sharding.Quality = None,
    workers: sharding.Workers = 1,
    scheduler: sharding.Scheduler = None,
    max_shard_size: sharding.MaxShardSize = sharding.MAX_SHARD_SIZE,
    check_decode: sharding.CheckDecode = False,
    dali_index: sharding.DaliIndex = False,
) -> None:
    """Turn ImageNet 2012 into per-class tar shards: from folders, or from the original tars."""
    with sharding.told_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        names = frozenset().union(*sharding.chosen_classes(classes, chosen)) or None
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
        raw = sharding.select(
            whole, classes=classes, benchmark=chosen, resize=resize, quality=quality
        )
        manifest = sharding.write(
            raw, out, sharding.Options(workers, scheduler, max_shard_size, check_decode, dali_index)
        )
        expected = {"val": VALIDATION_IMAGES_PER_CLASS * len(manifest.classes)}
        if len(manifest.classes) == N_CLASSES:
            expected["train"] = TRAINING_IMAGES_OF_ALL_CLASSES
        summarise(out, manifest, expected=expected, benchmark=chosen)


if __name__ == "__main__":
    run_tool(main)
