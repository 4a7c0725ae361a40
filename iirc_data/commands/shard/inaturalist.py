"""``iirc data shard inaturalist``: iNaturalist 2018, 2021 or 2021-mini, unpacked."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.sources import open_inaturalist
from iirc_data.sources.inaturalist import RELEASES


class ReleaseName(StrEnum):
    """The releases."""

    INATURALIST_2018 = "2018"
    INATURALIST_2021 = "2021"
    INATURALIST_2021_MINI = "2021-mini"


def shard_inaturalist(
    source: Annotated[
        Path,
        typer.Argument(
            resolve_path=True, help="Folder with the annotations (.json) and the folders of images."
        ),
    ],
    out: options.Out,
    release: Annotated[
        ReleaseName | None, typer.Option(help="Which release, if SOURCE holds several.")
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
    """Turn iNaturalist into per-class tar shards, with its taxonomy beside them."""
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        whole = open_inaturalist(source, release)
        raw = select(whole, classes=classes, benchmark=chosen, resize=resize, quality=quality)
        how = WriteOptions(workers, scheduler, max_shard_size, check_decode, dali_index)
        manifest = write(raw, out, how, whole.taxonomy())
        published = RELEASES[whole.release]
        is_whole = len(manifest.classes) == published.n_classes
        summarise(
            out, manifest, expected=published.n_images if is_whole else None, benchmark=chosen
        )
