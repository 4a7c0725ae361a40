"""Published API: messages, and reading CIFAR's pickles."""

import logging
from typing import Any

from iirc_data.definitions import PathLike
from iirc_data.sources.restricted_pickle import load_cifar_pickle

logger = logging.getLogger(__name__)


def print_msg(msg: object) -> None:
    """Print a message, and log it at level INFO."""
    print(msg)  # noqa: T201 - the purpose of this function
    logger.info(msg)


def unpickle(file: PathLike) -> dict[bytes, Any]:
    """Read one of CIFAR's pickles with an unpickler that builds plain data only.

    Args:
        file: A file such as ``cifar-100-python/train``.

    Returns:
        The content by key. Keys are bytes, such as ``b"data"`` and ``b"fine_labels"``.

    Raises:
        SourceError: The file is missing or damaged, or contains more than plain data.
    """
    return load_cifar_pickle(file)
