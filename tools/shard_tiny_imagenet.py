"""The command ``iirc data shard tiny-imagenet`` as a script."""

from iirc_data.commands.shard.tiny_imagenet import shard_tiny_imagenet as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
