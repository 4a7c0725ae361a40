"""``iirc data shard pets``: the Oxford-IIIT Pet dataset, unpacked."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.sources import open_pets

N_CLASSES = 37
IMAGES_OF_ALL_CLASSES = {"train": 3_680, "test": 3_669}


def shard_pets(
    source: Annotated[
        Path, typer.Argument(resolve_path=True, help="Folder with images/ and annotations/.")
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
    """Turn the Oxford-IIIT Pet dataset into per-class tar shards, with its taxonomy beside them."""
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        whole = open_pets(source)
        raw = select(whole, classes=classes, benchmark=chosen, resize=resize, quality=quality)
        how = WriteOptions(workers, scheduler, max_shard_size, check_decode, dali_index)
        manifest = write(raw, out, how, whole.taxonomy())
        expected = IMAGES_OF_ALL_CLASSES if len(manifest.classes) == N_CLASSES else None
        summarise(out, manifest, expected=expected, benchmark=chosen)
