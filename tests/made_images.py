"""Builds PNG and JPEG files byte by byte, because Pillow writes few of the kinds that it reads."""

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of each PNG colour type: gray, RGB, palette, gray with alpha, RGB with alpha."""

_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
_ADAM7.append((1, 0, 2, 1))

# --- PNG --------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(height: int, width: int, depth: int, colour_type: int, *methods: int) -> bytes:
    """Return IHDR; ``methods`` are compression, filter and interlacing."""
    compression, filters, interlace = methods or (0, 0, 0)
    return chunk(
        b"IHDR",
        struct.pack(">IIBBBBB", width, height, depth, colour_type, compression, filters, interlace),
    )


def png_rows(values: np.ndarray, depth: int, interlace: bool = False) -> bytes:
    """Pack integer pixels (H, W, channels) as PNG does: unfiltered, before compression."""
    if interlace:
        passes = [values[top::down, left::right] for top, left, down, right in _ADAM7]
        return b"".join(png_rows(part, depth) for part in passes if part.size)
    bits = np.unpackbits(values.astype(">u2")[..., None].view(np.uint8), axis=-1)[..., -depth:]
    packed = np.packbits(bits.reshape(len(values), -1), axis=1)
    return np.insert(packed, 0, 0, axis=1).tobytes()


def png(
    values: np.ndarray,
    depth: int,
    colour_type: int,
    *before: bytes,
    interlace: bool = False,
    after: Sequence[bytes] = (),
) -> bytes:
    """Return a PNG of pixels (H, W, channels), with extra chunks before and after the pixels."""
    return join_png(
        png_header(*values.shape[:2], depth, colour_type, 0, 0, int(interlace)),
        *before,
        chunk(b"IDAT", zlib.compress(png_rows(values, depth, interlace))),
        *after,
        chunk(b"IEND"),
    )


def join_png(*chunks: bytes) -> bytes:
    return PNG_START + b"".join(chunks)


def split_png(data: bytes) -> list[bytes]:
    """Return the chunks of a PNG."""
    chunks, at = [], len(PNG_START)
    while at < len(data):
        stop = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunks.append(data[at:stop])
        at = stop
    return chunks


# --- JPEG -------------------------------------------------------------------------------------


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
END = b"\xff\xd9"


def adobe(transform: int) -> bytes:
    """Return Adobe's segment; ``transform`` is 0 for RGB or CMYK, 1 for YCbCr, 2 for YCCK."""
    return segment(0xEE, b"Adobe\0d\0\0\0\0" + bytes([transform]))


def exif(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0)
    return segment(0xE1, b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01" + entry + bytes(4))


def split_jpeg(data: bytes) -> list[bytes]:
    """Return a JPEG's start marker, each segment before the first scan, and the remainder."""
    parts, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:stop])
        at = stop
    return [*parts, data[at:]]


# codes have equal length, so a code is the index of its symbol in the table
_DC_SYMBOLS = bytes(range(12))
_AC_SYMBOLS = bytes([0x00, *(run << 4 | size for run in range(4) for size in (1, 2, 3))])


def jpeg(
    height: int,
    width: int,
    factors: Sequence[tuple[int, int]],
    *headers: bytes,
    frame: int = 0xC0,
    precision: int = 8,
    ids: Sequence[int] = (1, 2, 3, 4),
    interleaved: bool = True,
    restart: int = 0,
    seed: int = 0,
) -> bytes:
    """Return a JPEG with random coefficients.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        factors: Horizontal and vertical sampling factor of each component.
        *headers: Segments after the start marker.
        frame: Marker of the frame. The pixels are always coded as in a baseline frame.
        precision: Bits per sample.
        ids: Identifiers of the components.
        interleaved: Write one scan of all components instead of one scan per component.
        restart: Minimum coded units between restart markers; 0 for none.
        seed: Seed of the coefficients.
    """
    rng = np.random.default_rng(seed)
    components = [bytes([name, h << 4 | v, 0]) for name, (h, v) in zip(ids, factors, strict=False)]
    head = [
        b"\xff\xd8",
        *headers,
        segment(0xDB, b"\0" + bytes([4] * 64)),
        segment(
            frame,
            struct.pack(">BHHB", precision, height, width, len(components)) + b"".join(components),
        ),
        segment(0xC4, b"\x00" + bytes([0, 0, 0, len(_DC_SYMBOLS)] + [0] * 12) + _DC_SYMBOLS),
        segment(0xC4, b"\x10" + bytes([0, 0, 0, len(_AC_SYMBOLS)] + [0] * 12) + _AC_SYMBOLS),
    ]
    if restart:
        head.append(segment(0xDD, struct.pack(">H", restart)))
    most_h, most_v = (max(factor[axis] for factor in factors) for axis in (0, 1))
    tables = {name: bytes([name, 0]) for name in ids}
    every = range(len(factors))
    scans = [every] if interleaved else [[number] for number in every]
    for scan in scans:
        if len(scan) == 1:  # a single component is stored block by block, row by row
            h, v = factors[scan[0]]
            samples = -(-height * v // most_v), -(-width * h // most_h)
            units, blocks = -(-samples[0] // 8) * -(-samples[1] // 8), [(scan[0], 1)]
        else:
            units = -(-height // (8 * most_v)) * -(-width // (8 * most_h))
            blocks = [(number, factors[number][0] * factors[number][1]) for number in scan]
        names = b"".join(tables[ids[number]] for number in scan)
        head.append(segment(0xDA, bytes([len(scan)]) + names + b"\0\x3f\0"))
        head.append(_coded(rng, units, blocks, restart))
    return b"".join([*head, END])


def _coded(
    rng: np.random.Generator, units: int, blocks: list[tuple[int, int]], restart: int
) -> bytes:
    parts: list[bytes] = []
    level: dict[int, int] = {}
    bits: list[str] = []
    for unit in range(units):
        if restart and unit and unit % restart == 0:
            parts += [_packed(bits), bytes([0xFF, 0xD0 + (unit // restart - 1) % 8])]
            bits, level = [], {}
        for number, n in blocks:
            for _ in range(n):
                bits += _block(rng, level, number)
    return b"".join([*parts, _packed(bits)])


def _block(rng: np.random.Generator, level: dict[int, int], number: int) -> Iterable[str]:
    """Yield the bits of a block: the difference of its mean, two coefficients, and the end."""
    before = level.get(number, 0)
    level[number] = int(rng.integers(-200, 201))
    change = level[number] - before
    size = abs(change).bit_length()
    yield f"{size:04b}" + _signed(change, size)
    for _ in range(2):
        symbol = int(rng.integers(1, len(_AC_SYMBOLS)))
        size = _AC_SYMBOLS[symbol] & 15
        yield f"{symbol:04b}{int(rng.integers(0, 1 << size)):0{size}b}"
    yield "0000"


def _signed(value: int, size: int) -> str:
    return f"{value if value >= 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def _packed(bits: list[str]) -> bytes:
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
