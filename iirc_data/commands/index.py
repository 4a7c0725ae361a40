"""``iirc data index``: index files for DALI's own webdataset reader."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import errors_in_one_line, one_line
from iirc_data.shards import ShardStore
from iirc_data.shards.dali_index import write_dali_index


def index_shards(
    shards: Annotated[Path, typer.Argument(help="Local shard folder, finished.")],
) -> None:
    """Write .idx files beside the shards, for DALI's own webdataset reader."""
    with errors_in_one_line():
        paths = write_dali_index(shards, ShardStore.open(shards).manifest)
        typer.echo(one_line(f"{shards}: {len(paths):,} index files"))
