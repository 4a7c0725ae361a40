"""Reading JSON files of any size: the elements of their arrays, one at a time."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iirc_data.errors import SourceError
from iirc_data.reading import open_regular
from iirc_data.sources.base import cannot_read

_CHUNK = 1 << 20
_LONGEST = 1 << 26
"""Longest text of one element in characters; a longer one is not decoded."""
_LOOK_AHEAD = 3
"""More characters than a number that is cut, as in ``1e+``, can leave undecoded."""
_ENDS = tuple(",]} \t\n\r")
_BLANKS = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def elements_of_arrays(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the elements of all arrays of a JSON object, each with the key of its array.

    Only one element is in memory at a time. Values that are not arrays are skipped.

    Args:
        path: A file with one object, ``{"info": …, "images": [{…}, {…}], …}``.

    Raises:
        SourceError: The file cannot be read, or is not a JSON object.
    """
    try:
        with io.BufferedReader(open_regular(path), _CHUNK) as file:
            yield from _members(_Text(io.TextIOWrapper(file, encoding="utf-8-sig", newline="")))
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{path} is not a JSON object of arrays ({error}): download it again"
        ) from error


class _Text:
    """A text that is read and decoded from front to back."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0

    @property
    def place(self) -> str:
        """The place of the next character, for error messages."""
        return f"at character {self._before + self._at:,}"

    def peek(self) -> str:
        """Return the next character that is not blank; an empty text at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def take(self, expected: str) -> str:
        """Step over the next character, one of those expected, and return it.

        Raises:
            ValueError: It is another one.
        """
        found = self.peek()
        if not found or found not in expected:
            wanted = " or ".join(map(repr, expected))
            raise ValueError(f"expected {wanted} {self.place}, got {found!r}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Decode the next value.

        Raises:
            ValueError: It is damaged, or too long.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at < _LONGEST and self._read():
                    continue
                raise ValueError(f"{error.msg} in the value {self.place}") from error
            follows = self._text[end : end + _LOOK_AHEAD]
            if len(follows) < _LOOK_AHEAD and follows[:1] not in _ENDS and self._read():
                continue  # a number may go on
            self._at = end
            return value

    def _read(self) -> bool:
        """Read on, at least as much as is waiting, so that a long value is rarely tried again."""
        waiting = len(self._text) - self._at
        more = self._file.read(max(_CHUNK, waiting))
        self._before += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    for _ in _items(text, "{}"):
        if text.peek() != '"':
            text.take('"')
        key = text.value()
        text.take(":")
        if text.peek() == "[":
            for _ in _items(text, "[]"):
                yield key, text.value()
        else:
            text.value()
    if rest := text.peek():
        raise ValueError(f"expected the end {text.place}, got {rest!r}")


def _items(text: _Text, brackets: str) -> Iterator[None]:
    """Stop before each item of an object or array, which the caller then reads."""
    closing = brackets[1]
    text.take(brackets[0])
    if text.peek() == closing:
        text.take(closing)
        return
    while True:
        yield
        if text.take("," + closing) == closing:
            return
