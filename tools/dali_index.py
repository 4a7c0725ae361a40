"""Write ``.idx`` files beside finished shards, for DALI's own webdataset reader."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import one_line, run_tool
from iirc_data.shards import ShardStore
from iirc_data.shards.dali_index import write_dali_index
from tools import sharding


def main(shards: Annotated[Path, typer.Argument(help="Finished shard folder.")]) -> None:
    """Write .idx files beside finished shards, for DALI's own webdataset reader."""
    with sharding.told_in_one_line():
        paths = write_dali_index(shards, ShardStore.open(shards).manifest)
        typer.echo(one_line(f"{shards}: {len(paths):,} index files"))


if __name__ == "__main__":
    run_tool(main)
