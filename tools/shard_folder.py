"""Turn an image folder ``split/class/*`` (or a tar of one) into per-class tar shards."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from iirc_data.errors import IIRCError
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.writer import DEFAULT_MAX_SHARD_SIZE, write_shards
from iirc_data.sources import Source, open_folder


def shard_with_progress(source: Source, out: Path, workers: int, max_shard_size: int) -> Manifest:
    """Write shards while showing classes done, images and bytes per second."""
    n_jobs = sum(len(names) for names in source.classes().values())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[images]:,} images"),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        classes = display.add_task("classes", total=n_jobs, images=0)

        def advance(images: int, size: int) -> None:
            display.update(
                classes, advance=1, images=display.tasks[classes].fields["images"] + images
            )

        return write_shards(
            source, out, workers=workers, max_shard_size=max_shard_size, progress=advance
        )


def main(
    source: Annotated[Path, typer.Argument(help="Image folder split/class/*, or a tar of one.")],
    out: Annotated[Path, typer.Argument(help="Shard folder to write.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    max_shard_size: Annotated[
        int, typer.Option(min=1, help="Bytes of images after which a class gets a further tar.")
    ] = DEFAULT_MAX_SHARD_SIZE,
) -> None:
    """Turn an image folder split/class/* (or a tar of one) into per-class tar shards."""
    console = Console()
    try:
        manifest = shard_with_progress(open_folder(source), out, workers, max_shard_size)
    except IIRCError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(1)
    n_samples = sum(shard.samples for shard in manifest.shards)
    console.print(
        f"{out}: {len(manifest.shards)} shards, {n_samples:,} samples, "
        f"{len(manifest.classes)} classes\ndigest {manifest.digest}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
