"""``iirc data shard aircraft``: FGVC-Aircraft 2013b, unpacked."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.sources import open_aircraft
from iirc_data.sources.aircraft import BANNER_HEIGHT, FOLDER

N_CLASSES = 100
IMAGES_OF_ALL_CLASSES = {"train": 6_667, "test": 3_333}
IMAGES_WITH_SEPARATE_VAL = {"train": 3_334, "val": 3_333, "test": 3_333}


def shard_aircraft(
    source: Annotated[
        Path, typer.Argument(resolve_path=True, help=f"The unpacked folder {FOLDER}.")
    ],
    out: options.Out,
    separate_val: Annotated[
        bool,
        typer.Option(
            "--separate-val",
            help="Write the validation images as a split val. By default they are in train, as in "
            "the dataset's lists trainval.",
        ),
    ] = False,
    crop_banner: Annotated[
        bool,
        typer.Option(
            "--crop-banner",
            help=f"Remove the copyright banner, the last {BANNER_HEIGHT} rows of each image; "
            "re-encodes images as JPEG.",
        ),
    ] = False,
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
    """Turn FGVC-Aircraft 2013b into per-class tar shards, with its taxonomy beside them."""
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        whole = open_aircraft(source, separate_val=separate_val)
        raw = select(
            whole,
            classes=classes,
            benchmark=chosen,
            resize=resize,
            quality=quality,
            crop_bottom=BANNER_HEIGHT if crop_banner else 0,
        )
        how = WriteOptions(workers, scheduler, max_shard_size, check_decode, dali_index)
        manifest = write(raw, out, how, whole.taxonomy())
        expected = IMAGES_WITH_SEPARATE_VAL if separate_val else IMAGES_OF_ALL_CLASSES
        is_whole = len(manifest.classes) == N_CLASSES
        summarise(out, manifest, expected=expected if is_whole else None, benchmark=chosen)
