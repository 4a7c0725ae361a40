"""``iirc data shard tiny-imagenet``: Tiny ImageNet, unpacked."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.sources import open_tiny_imagenet
from iirc_data.sources.tiny_imagenet import FOLDER

IMAGES_PER_CLASS = {"train": 500, "val": 50}


def shard_tiny_imagenet(
    source: Annotated[
        Path, typer.Argument(resolve_path=True, help=f"The unpacked folder {FOLDER}.")
    ],
    out: options.Out,
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
    """Turn Tiny ImageNet into per-class tar shards; the unlabelled test images are ignored."""
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        whole = open_tiny_imagenet(source)
        raw = select(whole, classes=classes, benchmark=chosen, resize=resize, quality=quality)
        how = WriteOptions(workers, scheduler, max_shard_size, check_decode, dali_index)
        manifest = write(raw, out, how)
        expected = {split: n * len(manifest.classes) for split, n in IMAGES_PER_CLASS.items()}
        summarise(out, manifest, expected=expected, benchmark=chosen)
