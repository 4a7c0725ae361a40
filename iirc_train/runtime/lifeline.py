"""A process that a sweep started never outlives the sweep, however that ends."""

import os
from collections.abc import Mapping
from threading import Thread

_NAME = "IIRC_LIFELINE"
_STANDARD_INPUT = 0


def environment_with_lifeline() -> Mapping[str, str]:
    """Return the environment for a process whose standard input is its lifeline."""
    return {**os.environ, _NAME: "stdin"}


def end_with_lifeline() -> None:
    """End this process at once when the one that writes its standard input is gone.

    Only where that was asked for, by :func:`environment_with_lifeline`.
    """
    if os.environ.pop(_NAME, None):
        Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(_STANDARD_INPUT, 1):  # sys.stdin would hold a lock that Python needs at its end
        pass
    os._exit(1)
