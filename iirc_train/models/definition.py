"""The code of a user's network, on which its latents depend as on its weights."""

import hashlib
import inspect
from functools import partial
from pathlib import Path

from iirc_train.models.networks import get_network

LIBRARIES = ("iirc_train", "torchvision", "timm")
"""Packages in whose releases the latents of a name and weights stay the same."""


def definition_digest(network: str) -> str | None:
    """Return the SHA-256 of the file that defines a network; None for those of libraries.

    Args:
        network: Its name.

    Raises:
        ConfigurationError: There is no such network.
    """
    factory = get_network(network)
    while isinstance(factory, partial):
        factory = factory.func
    defined = factory if inspect.isroutine(factory) or inspect.isclass(factory) else type(factory)
    if defined.__module__.partition(".")[0] in LIBRARIES:
        return None
    try:
        file = inspect.getsourcefile(defined)
        return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (TypeError, OSError):  # it is typed in, or compiled
        return None
