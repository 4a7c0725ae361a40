"""The command ``iirc data shard imagenet`` as a script."""

from iirc_data.commands.shard.imagenet import shard_imagenet as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
