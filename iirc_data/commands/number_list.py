"""Parses lists of numbers and ranges: ``0``, ``0-4``, ``0,2``."""

import re

MAX_NUMBERS = 10_000
"""Longest accepted range; a longer one is taken for a typo."""


def parse_numbers(text: str) -> list[int]:
    """Parse a list of numbers and ranges; keep the order and drop repeated numbers.

    Args:
        text: Numbers from 0 to 999,999,999 and ranges that include both ends, such as ``0-3,5``.

    Raises:
        ValueError: A part of the text is invalid; the message is that part.
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MAX_NUMBERS:
            raise ValueError(part)
        numbers |= dict.fromkeys(range(first, last + 1))
    return list(numbers)
