"""The arguments and options that all ``iirc data shard`` commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from iirc_data.shards.class_writer import DEFAULT_MAX_SHARD_SIZE
from iirc_data.sources.derived import DEFAULT_QUALITY

Out: TypeAlias = Annotated[Path, typer.Argument(resolve_path=True, help="Shard folder to write.")]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Take only these classes: a comma-separated list, or a file with one class per line."
    ),
]
BenchmarkName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--benchmark",
        help="Take only the classes of this benchmark (a name or a .json file), and report how "
        "the dataset fits it.",
    ),
]
Resize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="Shrink the shorter side to this many pixels; re-encodes images as JPEG."
    ),
]
Quality: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help=f"JPEG quality; re-encodes images. With --resize, the default is {DEFAULT_QUALITY}.",
    ),
]
Workers: TypeAlias = Annotated[
    int, typer.Option(min=1, max=1024, help="Number of processes; each writes one class at a time.")
]
Scheduler: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Write the classes on the dask.distributed cluster with this scheduler, for example "
        "tcp://host:8786; its workers must see the same files."
    ),
]
MaxShardSize: TypeAlias = Annotated[
    int,
    typer.Option(min=1, help="Bytes of image data after which a class continues in another tar."),
]
MAX_SHARD_SIZE = DEFAULT_MAX_SHARD_SIZE
CheckDecode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--check-decode",
        help="Decode every image fully, with Pillow and, if installed, with DALI, to find damaged "
        "images.",
    ),
]
DaliIndex: TypeAlias = Annotated[
    bool,
    typer.Option("--dali-index", help="Also write .idx files for DALI's own webdataset reader."),
]
