"""Mutations of a document: edits of its bytes, and of its values if it is structured."""

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

TELLING_BYTES = (
    b"\0",
    b"\xff",
    b"\x80" + bytes(3) + b"\xff" * 8,  # a size in base 256 in a tar header
    b"\xff" * 12,
    b"77777777777",
    b"-1",
    b"1e999",
    b"9" * 30,
    b"../../",
    b"[" * 50,
)

EXTREME_NUMBERS = (-1, 0, 1, 2**31, 2**62, 2**63, 2**64, 10**30, -(2**63), 0.5, -0.0, 1e308)

scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(EXTREME_NUMBERS)
    | st.integers(-3, 300)
    | st.text(max_size=12)
    | st.sampled_from(["", ".", "..", "/etc/passwd", "a/../b", "x" * 5000, "\x1b[2J", "\u202e"])
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def edited_bytes(draw: Callable[..., Any], seeds: list[bytes]) -> bytes:
    """One of the documents after a few edits: bit flips, cuts, repetitions, inserted bytes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        span = draw(st.integers(1, 64))
        match draw(st.sampled_from(["flip", "set", "put in", "over", "cut", "repeat", "end"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if data:
                data[at] = draw(st.integers(0, 255))
            case "put in":
                data[at:at] = draw(st.sampled_from(TELLING_BYTES) | st.binary(max_size=16))
            case "over":
                new = draw(st.sampled_from(TELLING_BYTES))
                data[at : at + len(new)] = new
            case "cut":
                del data[at : at + span]
            case "repeat":
                data[at:at] = data[at : at + span] * draw(st.integers(1, 20))
            case "end":
                del data[at:]
    return bytes(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inner:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


@st.composite
def edited_value(draw: Callable[..., Any], seed: Any, values: Any = json_values) -> Any:
    """A JSON value after a few edits: values replaced, copied, removed, added."""
    value = copy.deepcopy(seed)
    for _ in range(draw(st.integers(1, 4))):
        if not (known := places(value)):
            break
        *path, last = draw(st.sampled_from(known))
        parent = value
        for key in path:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "exchange"])):
            case "replace":
                parent[last] = draw(values)
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8))] = draw(values)
            case "add":
                parent.insert(draw(st.integers(0, len(parent))), draw(values))
            case "exchange":
                *other_path, other = draw(st.sampled_from(known))
                source = value
                try:
                    for key in other_path:
                        source = source[key]
                    parent[last] = copy.deepcopy(source[other])
                except (KeyError, IndexError, TypeError):
                    continue  # an earlier edit removed it
    return value
