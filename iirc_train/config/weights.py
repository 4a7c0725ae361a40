"""The setting ``weights``: none, those of the network's library, or a file."""

from pathlib import Path
from typing import Any

from iirc_train.config.places import read_place

NONE = "none"
"""The value of ``weights`` for new random weights."""

DEFAULT = "default"
"""The value of ``weights`` for the pretrained weights of the network's library."""


def read_weights_place(value: Any) -> str:
    """Check a value of ``weights``.

    Raises:
        ValueError: It is not text or a path, or is empty.
    """
    return NONE if value is None else read_place(value)


def absolute_weights(weights: str) -> str:
    """Return the setting with an absolute path if it names a file."""
    return weights if weights in (NONE, DEFAULT) else str(Path(weights).absolute())
