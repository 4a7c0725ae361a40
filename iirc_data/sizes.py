"""Sizes in bytes as users write them: ``50GB``, ``512 MiB``, ``1000000``."""

import re

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the number of bytes that a text states.

    Args:
        text: A number with an optional unit: ``kB``, ``MB``, ``GB`` and ``TB`` are powers of 1000,
            ``KiB``, ``MiB``, ``GiB`` and ``TiB`` powers of 1024. The ``B`` may be left out.

    Raises:
        ValueError: The text is not a size of at least 1 byte.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is not a size: expected a number and a unit, such as 50GB")
    units = _BINARY_UNITS if match[3] else _UNITS
    size = int(float(match[1]) * units[match[2].lower()])
    if size < 1:
        raise ValueError(f"{text!r} is not a size of at least 1 byte")
    return size
