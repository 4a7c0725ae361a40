"""Runs started by a sweep end with the sweep: their standard input is their lifeline."""

import os
from collections.abc import Mapping

from iirc_data.lifeline import exit_after

_NAME = "IIRC_LIFELINE"
_STANDARD_INPUT = 0


def environment_with_lifeline() -> Mapping[str, str]:
    """Return the environment for a process whose standard input is its lifeline."""
    return {**os.environ, _NAME: "stdin"}


def end_with_lifeline() -> None:
    """End this process at once when the process that holds its standard input open has ended.

    Does nothing unless :func:`environment_with_lifeline` gave the environment.
    """
    if os.environ.pop(_NAME, None):
        exit_after(_end_of_input)


def _end_of_input() -> None:
    while os.read(_STANDARD_INPUT, 1):  # not sys.stdin: Python needs its lock to exit
        pass
