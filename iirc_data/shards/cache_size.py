"""The limit of the cache of remote datasets, as users state it."""

import os
from contextlib import suppress
from pathlib import Path

from iirc_data.errors import ShardError
from iirc_data.sizes import parse_size

SIZE_VARIABLE = "IIRC_CACHE_SIZE"
LIMIT_NAME = "limit"
"""File in the cache with the limit for all processes that state none."""


def size_in_bytes(size: int | str | None, name: str = "cache_size") -> int | None:
    """Return a size in bytes that may be given as text; None stays None.

    Args:
        size: The size.
        name: Name of the setting in error messages.

    Raises:
        ShardError: The text is not a size.
    """
    try:
        return parse_size(size) if isinstance(size, str) else size
    except ValueError as error:
        raise ShardError(f"{name}: {error}") from error


def limit_of(base: Path) -> int | None:
    """Return the limit of a cache in bytes, or None if it has none.

    Raises:
        ShardError: What states the limit is not a size.
    """
    source = SIZE_VARIABLE
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    if not text:
        source = str(base / LIMIT_NAME)
        with suppress(OSError):
            text = (base / LIMIT_NAME).read_text().strip()
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise ShardError(f"{source}: {error}") from error
