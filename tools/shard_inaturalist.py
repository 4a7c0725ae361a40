"""The command ``iirc data shard inaturalist`` as a script."""

from iirc_data.commands.shard.inaturalist import shard_inaturalist as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
