"""Reading the chunks of a PNG, without decoding it."""

import struct
import zlib
from collections.abc import Iterator
from typing import TypeAlias

Encoded: TypeAlias = bytes | memoryview

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_FIRST_CHUNK = 33  # offset of the chunk after the header, in bytes
_EMPTY_CHUNK = 12  # size in bytes
_LONGEST_SIDE = 1_000_000  # the limit of libpng, which Pillow does not use
_GRAY_OR_RGB_OF_8_BITS = (b"\x08\0", b"\x08\2")
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_HARMLESS_AT_THE_END = (b"tEXt", b"tIME")


def png_size(data: Encoded) -> tuple[int, int] | None:
    """Return the height and width that a PNG declares; None if the data is not a PNG."""
    start = bytes(data[:24])
    if not start.startswith(_START) or len(start) < 24:
        return None
    width, height = struct.unpack_from(">II", start, 16)
    return height, width


def is_plain_png(data: Encoded) -> bool:
    """Return whether all decoders give the same pixels for a PNG, or all refuse it.

    Decoders differ in how they convert other pixel formats to RGB, in which frame of an animation
    they return, and in whether they read beyond the pixels.
    """
    size = png_size(data)
    if size is None or max(size) > _LONGEST_SIDE or data[24:26] not in _GRAY_OR_RGB_OF_8_BITS:
        return False
    has_pixels = False
    for kind, chunk in _chunks(data):
        if kind == b"IEND":
            return has_pixels and len(chunk) == _EMPTY_CHUNK
        if kind == b"IDAT":
            has_pixels = True
        elif kind in _ANIMATION or (has_pixels and not _is_harmless(kind, chunk)):
            return False
    return False


def is_regular_png(data: Encoded) -> bool:
    """Return whether a PNG consists of chunks only, from its header to its end."""
    return png_size(data) is not None and any(kind == b"IEND" for kind, _ in _chunks(data))


def _chunks(data: Encoded) -> Iterator[tuple[bytes, Encoded]]:
    """Yield the complete chunks after the header."""
    at = _FIRST_CHUNK
    while at + _EMPTY_CHUNK <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + _EMPTY_CHUNK + length
        if stop > len(data):
            return
        yield kind, data[at:stop]
        at = stop


def _is_harmless(kind: bytes, chunk: Encoded) -> bool:
    return kind in _HARMLESS_AT_THE_END and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
