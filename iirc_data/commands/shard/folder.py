"""``iirc data shard folder``: an image folder ``split/class/*``, or a tar of one."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from iirc_data.benchmarks import benchmark_text, load_benchmark
from iirc_data.benchmarks.making import starting_benchmark, with_classes
from iirc_data.commands.shard import options
from iirc_data.commands.shard.selection import select
from iirc_data.commands.shard.summary import summarise
from iirc_data.commands.shard.writing import WriteOptions, resumable_in_one_line, write
from iirc_data.files import write_atomically
from iirc_data.shards.class_writer import writing
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME
from iirc_data.shards.preconditions import check_before_writing
from iirc_data.sources import Source, open_folder
from iirc_data.taxonomies.json_file import read_taxonomy
from iirc_data.taxonomies.reduction import restricted

BENCHMARK_NAME = "benchmark.json"


def shard_folder(
    source: Annotated[
        Path,
        typer.Argument(resolve_path=True, help="Image folder split/class/*, or a tar of one."),
    ],
    out: options.Out,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            help="JSON file that maps superclasses to lists of subclasses. It is copied to "
            f"OUT/{TAXONOMY_NAME}, and a benchmark to start from is written to "
            f"OUT/{BENCHMARK_NAME}; `iirc benchmarks make` makes others."
        ),
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
    """Turn an image folder split/class/* (or a tar of one) into per-class tar shards."""
    with resumable_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        whole = open_folder(source)
        raw = select(whole, classes=classes, benchmark=chosen, resize=resize, quality=quality)
        superclasses = None
        if taxonomy is not None:
            check_before_writing(raw, out)  # before the benchmark is written
            taken = _classes(raw)
            read = read_taxonomy(taxonomy)
            superclasses = read.superclasses
            left_out = set(superclasses).difference(taken)
            read = with_classes(read, [c for c in _classes(whole) if c not in left_out])
            start = starting_benchmark(raw.name, restricted(read, taken, superclasses), taken)
            chosen = chosen or start
            if not (out / MANIFEST_NAME).exists():  # otherwise the user may have edited it
                path = out / BENCHMARK_NAME
                with writing(path), write_atomically(path) as file:
                    file.write(benchmark_text(start).encode())
        how = WriteOptions(workers, scheduler, max_shard_size, check_decode, dali_index)
        manifest = write(raw, out, how, superclasses)
        summarise(out, manifest, benchmark=chosen)


def _classes(source: Source) -> list[str]:
    return sorted(set(chain.from_iterable(source.classes().values())))
