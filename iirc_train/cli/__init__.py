"""The command line: the command ``iirc``, one file per subcommand."""

from iirc_train.cli.app import main

__all__ = ["main"]
