"""The command ``iirc data index`` as a script."""

from iirc_data.commands.index import index_shards as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
