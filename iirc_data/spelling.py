"""Names in messages: the first of many, and names that differ only in case, accents or blanks."""

import re
from collections.abc import Iterable, Sequence
from unicodedata import normalize

_SEPARATORS = re.compile(r"[\s_-]+")


def folded(name: str) -> str:
    """Return a key that is equal for names that a case-insensitive file system may confuse."""
    return normalize("NFC", normalize("NFC", name).casefold()).strip()


def spelt_twice(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ only in case, form of accents, or outer blanks; sorted."""
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(set(names)):
        other = first.setdefault(folded(name), name)
        if other != name:
            pairs.append((other, name))
    return pairs


def in_quotes(name: str, other: str) -> str:
    """Return a name in quotes, escaped to ASCII if it would look the same as the other name."""
    looks_alike = normalize("NFC", name) == normalize("NFC", other)
    return ascii(name) if looks_alike else repr(name)


def first_of(names: Sequence[str], most: int = 5) -> str:
    """List names; of many, the first and their number: ``"a, b, … (7 in all)"``."""
    more = f", … ({len(names):,} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def with_known_spelling(names: Iterable[str], known: Iterable[str], most: int = 5) -> str:
    """List missing names, each with its other spelling among the known names, if there is one.

    Spaces, hyphens and underscores count as equal, and so do full-width and ordinary letters.

    Args:
        names: The missing names.
        known: The names to search for other spellings.
        most: Largest number of names to list.

    Returns:
        For example ``"oak (there is 'Oak'), rose, …"``.
    """
    listed = list(names)
    spellings = {_loosely(name): name for name in known if name not in listed}
    texts = []
    for name in listed[:most]:
        there = spellings.get(_loosely(name), name)
        hint = f"{in_quotes(name, there)} (there is {in_quotes(there, name)})"
        texts.append(name if there == name else hint)
    return ", ".join(texts) + (", …" if len(listed) > most else "")


def _loosely(name: str) -> str:
    return _SEPARATORS.sub("", folded(normalize("NFKC", name)))
