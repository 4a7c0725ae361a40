"""The command ``iirc data shard aircraft`` as a script."""

from iirc_data.commands.shard.aircraft import shard_aircraft as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
