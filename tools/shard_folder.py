"""The command ``iirc data shard folder`` as a script."""

from iirc_data.commands.shard.folder import shard_folder as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
