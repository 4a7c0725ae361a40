"""Warnings that name the line of the user's program, not one of this project."""

import sys
import warnings

_NOT_THE_CALLER = {"iirc_data", "iirc_train", "contextlib"}


def warn(message: str) -> None:
    """Issue a UserWarning from the nearest caller outside this project.

    Args:
        message: What is wrong, and what to do about it.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _NOT_THE_CALLER
