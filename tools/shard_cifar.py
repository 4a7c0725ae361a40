"""The command ``iirc data shard cifar`` as a script."""

from iirc_data.commands.shard.cifar import shard_cifar as main
from iirc_data.console import run_tool

__all__ = ["main"]

if __name__ == "__main__":
    run_tool(main)
