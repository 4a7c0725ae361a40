"""Reading the segments of a JPEG, without decoding it."""

import struct
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Encoded: TypeAlias = bytes | memoryview

_START = b"\xff\xd8"
_END = 0xD9
_SCAN = 0xDA
_QUANTIZATION = 0xDB
_ADOBE = 0xEE
_COMMENT = 0xFE
_BETWEEN_SCANS = frozenset([0xC4, _SCAN, _QUANTIZATION, 0xDD])  # scans and their tables
_PROGRESSIVE = 0xC2
_PLAIN_FRAMES = frozenset([0xC0, 0xC1, _PROGRESSIVE])
_SEGMENTS = frozenset([*_PLAIN_FRAMES, *_BETWEEN_SCANS, _COMMENT, *range(0xE0, 0xF0)])
_MARKERS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))  # that start a segment
# the segments that Pillow reads: their names, and the bytes that they need
_READ_BY_PILLOW = {
    0xE0: (b"JFIF", 7),
    0xE2: (b"ICC_PROFILE\0", 14),
    _ADOBE: (b"Adobe", 7),
}
# coefficients that decoders estimate from neighbouring blocks if no scan gives all their bits
_SMOOTHED = 0b11_1111_1110
_USUAL_FACTORS = frozenset([0x11, 0x12, 0x21, 0x22, 0x41])  # horizontal << 4 | vertical
_YCBCR = 1  # in Adobe's segment


class Frame(NamedTuple):
    """The frame of a valid 8-bit JPEG with one or three components.

    Attributes:
        marker: Kind of the frame: baseline, extended or progressive.
        height: In pixels.
        width: In pixels.
        components: uint8 (components, 3): name, sampling factors, table.
        adobe: The colour transform in Adobe's segment, or None.
        scan: Offset of the first scan in bytes.
    """

    marker: int
    height: int
    width: int
    components: bytes
    adobe: int | None
    scan: int


def read_frame(data: Encoded) -> Frame | None:
    """Read the frame of a JPEG with a valid, plain header; return None for any other data.

    Pillow is slower, because it parses every table on the way: a third of the time of sharding.
    """
    if data[: len(_START)] != _START:
        return None
    marker = adobe = None
    content: Encoded = b""
    at = len(_START)
    while at + 4 < len(data) and data[at] == 0xFF and data[at + 1] in _SEGMENTS:
        kind, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        segment = data[at + 4 : at + 2 + length]
        if len(segment) != length - 2:
            return None
        if kind == _SCAN:
            return None if marker is None else _frame(marker, content, adobe, at)
        if kind == _QUANTIZATION and not _are_plain_tables(segment):
            return None
        if kind & 0xF0 == 0xE0 and not _is_plain_application(kind, segment):
            return None
        if kind == _ADOBE and segment[:5] == b"Adobe" and len(segment) >= 12:
            adobe = segment[11]
        if kind in _PLAIN_FRAMES:
            if marker is not None:
                return None
            marker, content = kind, segment
        at += 2 + length
    return None


def is_plain_jpeg(data: NDArray[np.uint8], frame: Frame) -> bool:
    """Return whether all decoders give the same pixels for a JPEG, or all reject it.

    Decoders may differ if the colour space is ambiguous, or if one does not support the chroma
    subsampling. They may also differ if the file is damaged beyond the last row, because some
    decoders stop reading there.

    Args:
        data: uint8 (bytes,), the file.
        frame: The frame of the JPEG.
    """
    names, factors = frame.components[::3], frame.components[1::3]
    if frame.adobe not in (None, _YCBCR) or names == b"RGB":
        return False
    if factors[0] not in _USUAL_FACTORS or any(factor != 0x11 for factor in factors[1:]):
        return False
    return _ends_soundly(data, frame)


def is_regular_jpeg(data: Encoded) -> bool:
    """Return whether the header of a JPEG consists of segments only, as the format requires."""
    at = len(_START)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] in _MARKERS:
        if data[at + 1] == _SCAN:
            return True
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return False


def _frame(marker: int, content: Encoded, adobe: int | None, scan: int) -> Frame | None:
    if len(content) < 6:
        return None
    precision, height, width, n = struct.unpack_from(">BHHB", content)
    if precision != 8 or n not in (1, 3) or len(content) != 6 + 3 * n or not height * width:
        return None
    return Frame(marker, height, width, bytes(content[6:]), adobe, scan)


def _are_plain_tables(content: Encoded) -> bool:
    """Return whether these are 8-bit quantization tables: a number and 64 values each."""
    return len(content) % 65 == 0 and max(content[::65], default=16) < 16


def _is_plain_application(kind: int, content: Encoded) -> bool:
    """Return whether Pillow can parse an application segment."""
    name, least = _READ_BY_PILLOW.get(kind, (b"", 0))
    if content[: len(name)] == name and len(content) < least:
        return False
    # several pictures, or a truncated Photoshop resource
    return content[:4] != b"MPF\0" and content[-6:-2] != b"8BIM"


def _ends_soundly(data: NDArray[np.uint8], frame: Frame) -> bool:
    """Return whether the rest is all scans and their tables, up to the end marker."""
    at = frame.scan
    escapes = np.flatnonzero(data[at:-1] == 0xFF) + at
    markers = data[escapes + 1]
    is_marker = (markers != 0) & (markers & 0xF8 != 0xD0)  # neither an escaped byte nor a restart
    places = zip(escapes[is_marker].tolist(), markers[is_marker].tolist(), strict=True)
    names = frame.components[::3]
    is_progressive = frame.marker == _PROGRESSIVE
    unrefined = dict.fromkeys(names, _SMOOTHED if is_progressive else 0)
    in_scan = is_last = False
    for place, marker in places:
        if place < at:  # content of a segment
            continue
        if marker == _END:
            return in_scan and not any(unrefined.values())
        if is_last or marker not in _BETWEEN_SCANS or not (in_scan or place == at):
            return False
        length = int.from_bytes(data[place + 2 : place + 4].tobytes(), "big")
        at = place + 2 + length
        in_scan = marker == _SCAN
        if in_scan:
            content = data[place + 4 : at].tobytes()
            shown = content[1:-3:2]
            begin, end, precision = content[-3:] if len(content) > 3 else (0, 0, 1)
            if precision & 0xF == 0:
                for name in shown:
                    unrefined[name] = unrefined.get(name, 0) & ~((2 << end) - (1 << begin))
            is_last = not is_progressive and len(shown) == len(names)
    return False
