"""Messages, and reading CIFAR's pickles."""

import logging
from typing import Any

from iirc_data.definitions import PathLike
from iirc_data.sources.restricted_pickle import load_cifar_pickle

logger = logging.getLogger(__name__)


def print_msg(msg: object) -> None:
    """Print a message, and log it at level INFO."""
    print(msg)  # noqa: T201 - what this function is for
    logger.info(msg)


def unpickle(file: PathLike) -> dict[bytes, Any]:
    """Read one of CIFAR's pickles, through an unpickler that can build data and nothing else.

    Args:
        file: For example ``cifar-100-python/train``.

    Returns:
        Keys as bytes, for example ``b"data"`` and ``b"fine_labels"``.

    Raises:
        SourceError: The file is missing or damaged, or holds more than data.
    """
    return load_cifar_pickle(file)
