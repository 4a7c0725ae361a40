"""Images in every pixel format of JPEG and PNG."""

import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

from tests.conftest import encode, noise_image

HEIGHT, WIDTH = 31, 33


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(depth: int, colour_type: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """Build a PNG byte by byte, because Pillow writes few of its pixel formats."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = [_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def pixels_to_show(image: Image.Image) -> np.ndarray:
    """Return pixels, uint8 (H, W, 3), as Pillow converts them; but 16-bit gray by its upper 8."""
    if image.mode.startswith("I"):
        return np.stack([np.asarray(image) // 256] * 3, axis=2).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


@cache
def odd_images() -> dict[str, bytes]:
    """Return encoded images by file name."""
    rng = np.random.default_rng(0)
    image = noise_image(0, HEIGHT, WIDTH)
    alpha = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
    with_alpha = image.copy()
    with_alpha.putalpha(alpha)
    turned = image.copy()
    turned.getexif()[0x112] = 6
    wide = rng.integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(">u2")
    rgb = [row.tobytes() for row in np.asarray(image)]
    red, green, blue = map(int, np.asarray(image)[0, 0])
    images = {
        "jpeg of rgb.jpg": encode(image),
        "jpeg of gray.jpg": encode(image.convert("L")),
        "cmyk.jpg": encode(image.convert("CMYK")),
        "turned by exif.jpg": encode(turned),
        "rgb.png": encode(image, "PNG"),
        "gray.png": encode(image.convert("L"), "PNG"),
        "black and white.png": encode(image.convert("1"), "PNG"),
        "palette.png": encode(image.quantize(16), "PNG"),
        "rgb and alpha.png": encode(with_alpha, "PNG"),
        "gray and alpha.png": encode(with_alpha.convert("LA"), "PNG"),
        "transparent colour.png": _png(
            8, 2, rgb, _chunk(b"tRNS", struct.pack(">HHH", red, green, blue))
        ),
    }
    for name, colour_type, channels in [("gray", 0, 1), ("rgb", 2, 3), ("rgba", 6, 4)]:
        rows = [row[:, :channels].tobytes() for row in wide]
        images[f"{name} of 16 bits.png"] = _png(16, colour_type, rows)
    images["clear gray of 16 bits.png"] = _png(
        16, 0, [row[:, 0].tobytes() for row in wide], _chunk(b"tRNS", wide[0, 0, :1].tobytes())
    )
    images["clear black.png"] = _png(
        1, 0, [rng.bytes(-(-WIDTH // 8))] * HEIGHT, _chunk(b"tRNS", b"\0\0")
    )
    for bits in (1, 2, 4):
        row_bytes = -(-WIDTH * bits // 8)
        images[f"gray of {bits} bits.png"] = _png(bits, 0, [rng.bytes(row_bytes)] * HEIGHT)
    return images
