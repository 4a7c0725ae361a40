"""The command ``iirc data shard pets`` as a script."""

from iirc_data.commands.shard.pets import shard_pets as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
