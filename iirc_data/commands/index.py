"""``iirc data index``: index files for DALI's webdataset reader, and checksums of blocks."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import errors_in_one_line, one_line
from iirc_data.shards import ShardStore
from iirc_data.shards.blocks import BLOCKS_NAME, write_checksums
from iirc_data.shards.dali_index import write_dali_index


def index_shards(
    shards: Annotated[Path, typer.Argument(help="Local shard folder, finished.")],
    pin: Annotated[
        bool,
        typer.Option(
            "--pin", help="Name the checksums in manifest.json; earlier releases cannot read it."
        ),
    ] = False,
) -> None:
    """Write .idx files for DALI's own webdataset reader, and blocks.npz if it is missing.

    blocks.npz contains the checksums that allow parts of remote shards to be read. Datasets whose
    shards are all small need none.
    """
    with errors_in_one_line():
        store = ShardStore.open(shards)
        paths = write_dali_index(shards, store.manifest)
        typer.echo(one_line(f"{shards}: {len(paths):,} index files"))
        checksums = write_checksums(shards, store.table, store.manifest, pin=pin)
        if checksums is not None:
            n_blocks = len(checksums.sha256)
            typer.echo(one_line(f"{shards}: checksums of {n_blocks:,} blocks in {BLOCKS_NAME}"))
