"""Turn an image folder ``split/class/*`` (or a tar of one) into per-class tar shards."""

from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import TypeAdapter, ValidationError

from iirc_data.benchmarks import Benchmark, load_benchmark, parse_benchmark, parse_json
from iirc_data.console import run_tool
from iirc_data.errors import BenchmarkError
from iirc_data.files import canonical_json, write_json
from iirc_data.reading import read_text
from iirc_data.shards.class_writer import writing
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.shards.preconditions import check_before_writing
from iirc_data.sources import open_folder
from iirc_data.spelling import with_known_spelling
from tools import sharding
from tools.summary import summarise

Taxonomy: TypeAlias = dict[str, list[str]]
"""Superclass to its subclasses."""

BENCHMARK_NAME = "benchmark.json"
_CLASSES_PER_TASK = 5


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a JSON file ``{superclass: [subclasses]}``.

    Raises:
        BenchmarkError: The file cannot be read or holds something else.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BenchmarkError(f"cannot read taxonomy {path}: {reason}") from error
    try:
        content = parse_json(text, str(path))
        return TypeAdapter(Taxonomy).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise BenchmarkError(
            f"{path} is no taxonomy {{superclass: [subclasses]}}: {field}: {first['msg']}"
        ) from error


def starting_benchmark(name: str, taxonomy: Taxonomy, classes: list[str]) -> Benchmark:
    """Make a benchmark to start from: superclasses first, then a few classes at a time.

    Args:
        name: Name of benchmark and dataset.
        taxonomy: Superclasses; may leave out classes, which then have none.
        classes: The dataset's leaf classes.

    Returns:
        A benchmark with one schedule; each task takes classes of different superclasses.

    Raises:
        BenchmarkError: The taxonomy names classes that the dataset lacks, or contradicts itself.
    """
    subclasses = set(chain.from_iterable(taxonomy.values()))
    if missing := sorted(subclasses - set(classes)):
        raise BenchmarkError(
            f"the taxonomy names {len(missing)} classes that the dataset lacks: "
            f"{with_known_spelling(missing, classes)}"
        )
    others = [name for name in classes if name not in subclasses]
    in_turn = chain.from_iterable(zip_longest(*taxonomy.values(), others))
    leaves = [leaf for leaf in in_turn if leaf is not None]
    tasks = [
        leaves[first : first + _CLASSES_PER_TASK]
        for first in range(0, len(leaves), _CLASSES_PER_TASK)
    ]
    content = {
        "name": name,
        "dataset": name,
        "description": "Made from a taxonomy: edit schedules, splits and sampling as you need.",
        "superclasses": taxonomy,
        "other_classes": others,
        "transforms": "imagenet",
        "schedules": [[list(taxonomy), *tasks] if taxonomy else tasks],
    }
    return parse_benchmark(canonical_json(content), "what the taxonomy makes")


def main(
    source: Annotated[
        Path,
        typer.Argument(resolve_path=True, help="Image folder split/class/*, or a tar of one."),
    ],
    out: sharding.Out,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            help="JSON file {superclass: [classes]}: a benchmark to start from is written to "
            f"OUT/{BENCHMARK_NAME}."
        ),
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
    """Turn an image folder split/class/* (or a tar of one) into per-class tar shards."""
    with sharding.told_in_one_line():
        chosen = None if benchmark is None else load_benchmark(benchmark)
        raw = sharding.select(
            open_folder(source), classes=classes, benchmark=chosen, resize=resize, quality=quality
        )
        check_before_writing(raw, out)
        if taxonomy is not None:
            leaves = sorted(set(chain.from_iterable(raw.classes().values())))
            chosen = starting_benchmark(raw.name, read_taxonomy(taxonomy), leaves)
            if not (out / MANIFEST_NAME).exists():  # else it may be edited, and stays
                with writing(out / BENCHMARK_NAME):
                    write_json(out / BENCHMARK_NAME, chosen.model_dump())
        manifest = sharding.write(
            raw, out, sharding.Options(workers, scheduler, max_shard_size, check_decode, dali_index)
        )
        summarise(out, manifest, benchmark=chosen)


if __name__ == "__main__":
    run_tool(main)
