"""Hundreds of odd images: PNGs and JPEGs of every kind, intact and damaged.

All have the same size, so that they fit into one batch.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import numpy as np
from PIL import Image, ImageCms

from tests.conftest import encode, noise_image
from tests.made_images import (
    END,
    JFIF,
    PNG_CHANNELS,
    PNG_START,
    adobe,
    chunk,
    exif,
    join_png,
    jpeg,
    png,
    png_header,
    png_rows,
    segment,
    split_jpeg,
    split_png,
)

HEIGHT, WIDTH = 31, 33
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_NAMES = {0: "gray", 2: "rgb", 3: "palette", 4: "gray and alpha", 6: "rgba"}
_SCAN = 0xDA


@cache
def odd_cases() -> dict[str, bytes]:
    """Return encoded images by name, without extension. Some are not valid images."""
    cases: dict[str, bytes] = {}
    for name, data in [
        *_pngs_of_every_kind(),
        *_pngs_with_chunks(),
        *_animated_pngs(),
        *_damaged_pngs(),
        *_jpegs_by_pillow(),
        *_jpegs_of_every_kind(),
        *_odd_jpegs(),
        *_damaged_jpegs(),
        *_other_formats(),
    ]:
        assert name not in cases, name
        cases[name] = data
    return cases


def pixels(depth: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, depth]).integers(0, 1 << depth, (HEIGHT, WIDTH, channels))


def _palette(depth: int) -> bytes:
    return chunk(b"PLTE", np.random.default_rng(depth).bytes(3 << depth))


def _kinds() -> Iterator[tuple[str, int, int]]:
    for colour_type, depths in DEPTHS.items():
        for depth in depths:
            yield f"{_PNG_NAMES[colour_type]} {depth} bit", depth, colour_type


def _transparency(depth: int, colour_type: int, values: np.ndarray) -> list[bytes | None]:
    """Return None, and a chunk that makes an occurring colour transparent if the type allows it."""
    if colour_type in (4, 6):
        return [None]
    if colour_type == 3:
        return [None, chunk(b"tRNS", bytes([0, 128][: 1 << depth]))]
    return [None, chunk(b"tRNS", values[0, 0].astype(">u2").tobytes())]


def _pngs_of_every_kind() -> Iterator[tuple[str, bytes]]:
    for kind, depth, colour_type in _kinds():
        values = pixels(depth, PNG_CHANNELS[colour_type])
        before = [_palette(depth)] if colour_type == 3 else []
        for clear in _transparency(depth, colour_type, values):
            for interlace in (False, True):
                words = ["png", kind, *["clear"] * (clear is not None), *["adam7"] * interlace]
                chunks = [*before, clear] if clear is not None else before
                yield " ".join(words), png(values, depth, colour_type, *chunks, interlace=interlace)


def _ancillary() -> dict[str, bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "gamma 1": chunk(b"gAMA", struct.pack(">I", 100_000)),
        "gamma .25": chunk(b"gAMA", struct.pack(">I", 25_000)),
        "gamma 0": chunk(b"gAMA", bytes(4)),
        "srgb": chunk(b"sRGB", b"\0"),
        "chromaticities": chunk(
            b"cHRM",
            struct.pack(">8I", 31270, 32900, 15000, 6000, 21000, 71000, 64000, 33000),
        ),
        "profile": chunk(b"iCCP", b"it\0\0" + zlib.compress(profile)),
        "broken profile": chunk(b"iCCP", b"it\0\0" + b"no zlib"),
        "exif": chunk(b"eXIf", exif(6)[10:]),
        "text": chunk(b"tEXt", b"Comment\0of this image"),
        "compressed text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"of this image" * 99)),
        "unicode text": chunk(b"iTXt", b"Comment\0\0\0de\0\0" + "Größe".encode()),
        "resolution": chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0)),
        "time": chunk(b"tIME", bytes([7, 200, 13, 40, 30, 70, 80])),
        "private": chunk(b"prVt", b"anything"),
        "private critical": chunk(b"PrVt", b"anything"),
        "cicp": chunk(b"cICP", bytes([9, 16, 0, 1])),
    }


def _pngs_with_chunks() -> Iterator[tuple[str, bytes]]:
    for kind, depth, colour_type in [("rgb", 8, 2), ("gray", 8, 0), ("gray 16 bit", 16, 0)]:
        values = pixels(depth, PNG_CHANNELS[colour_type])
        for name, data in _ancillary().items():
            yield f"png {kind} with {name}", png(values, depth, colour_type, data)
        significant = chunk(b"sBIT", bytes([5] * PNG_CHANNELS[colour_type]))
        yield f"png {kind} with significant bits", png(values, depth, colour_type, significant)
        background = chunk(b"bKGD", bytes(2 * PNG_CHANNELS[colour_type]))
        yield f"png {kind} with background", png(values, depth, colour_type, background)
    values = pixels(8, 3)
    yield "png rgb with suggested palette", png(values, 8, 2, _palette(8))
    late = [chunk(b"tEXt", b"Comment\0late"), chunk(b"eXIf", exif(3)[10:])]
    yield "png rgb with late chunks", png(values, 8, 2, after=late)
    yield (
        "png rgb with a late transparent colour",
        png(values, 8, 2, after=[chunk(b"tRNS", values[0, 0].astype(">u2").tobytes())]),
    )
    yield "png palette of few", png(pixels(2, 1), 8, 3, _palette(2))
    yield "png palette all clear", png(pixels(8, 1), 8, 3, _palette(8), chunk(b"tRNS", bytes(256)))


def _animated_pngs() -> Iterator[tuple[str, bytes]]:
    for name, depth, colour_type in [("rgb", 8, 2), ("rgba", 8, 6), ("gray", 8, 0)]:
        first, second = (pixels(depth, PNG_CHANNELS[colour_type], seed) for seed in (0, 1))
        shown, hidden = (zlib.compress(png_rows(values, depth)) for values in (first, second))
        head = png_header(HEIGHT, WIDTH, depth, colour_type)

        def frame(
            number: int, height: int = HEIGHT, width: int = WIDTH, top: int = 0, left: int = 0
        ) -> bytes:
            place = struct.pack(">IIIII", number, width, height, left, top)
            return chunk(b"fcTL", place + struct.pack(">HHBB", 1, 10, 0, 0))

        def control(n: int) -> bytes:
            return chunk(b"acTL", struct.pack(">II", n, 0))

        later = [frame(1), chunk(b"fdAT", struct.pack(">I", 2) + hidden), chunk(b"IEND")]
        image = chunk(b"IDAT", shown)
        yield f"png animated {name}", join_png(head, control(2), frame(0), image, *later)
        only = [frame(0), chunk(b"fdAT", struct.pack(">I", 1) + hidden), chunk(b"IEND")]
        yield f"png animated {name} after a still", join_png(head, control(1), image, *only)
        end = chunk(b"IEND")
        yield f"png animated {name} of one", join_png(head, control(1), frame(0), image, end)
        yield f"png animated {name} cut", join_png(head, control(2), frame(0), image, end)
        part = zlib.compress(png_rows(second[:9, :7], depth))
        yield (
            f"png animated {name} in part",
            join_png(
                head,
                control(2),
                frame(0),
                image,
                frame(1, 9, 7, 3, 2),
                chunk(b"fdAT", struct.pack(">I", 2) + part),
                end,
            ),
        )
        yield f"png animated {name} late control", join_png(head, image, control(2), *later)


def _with_wrong_sum(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _damaged_pngs() -> Iterator[tuple[str, bytes]]:
    values = pixels(8, 3)
    whole = png(values, 8, 2)
    head, image, end = split_png(whole)
    packed, rows = image[8:-4], png_rows(values, 8)
    text = chunk(b"tEXt", b"Comment\0x")

    def data(content: bytes) -> bytes:
        return join_png(head, chunk(b"IDAT", content), end)

    yield "png without its end", join_png(head, image)
    yield "png with half an end", whole[:-6]
    yield "png with an end without sum", whole[:-4]
    yield "png cut in its sum", join_png(head, image)[:-2]
    yield "png cut before its sum", join_png(head, image)[:-4]
    yield "png cut by a byte of pixels", join_png(head, image)[:-5]
    yield "png cut in the middle", whole[: len(whole) // 2]
    yield "png cut early", whole[:60]
    yield "png without pixels", join_png(head, end)
    yield "png of a header", join_png(head)
    yield "png of a signature", PNG_START
    yield "png with junk after it", whole + b"junk after the end"
    yield "png twice", whole + whole
    for name, parts in {
        "header": (_with_wrong_sum(head), image, end),
        "pixels": (head, _with_wrong_sum(image), end),
        "end": (head, image, _with_wrong_sum(end)),
        "text": (head, _with_wrong_sum(text), image, end),
    }.items():
        yield f"png with a wrong sum of its {name}", join_png(*parts)
    yield (
        "png in small parts",
        join_png(head, *(chunk(b"IDAT", packed[i : i + 7]) for i in range(0, len(packed), 7)), end),
    )
    yield "png with an empty part", join_png(head, chunk(b"IDAT"), image, end)
    yield "png with an empty part at the end", join_png(head, image, chunk(b"IDAT"), end)
    middle = len(packed) // 2
    parts = chunk(b"IDAT", packed[:middle]), chunk(b"IDAT", packed[middle:])
    yield "png with text between its parts", join_png(head, parts[0], text, parts[1], end)
    yield "png whose second part is lost", join_png(head, parts[0], end)
    yield "png with a wrong adler", data(packed[:-1] + bytes([packed[-1] ^ 1]))
    yield "png without adler", data(packed[:-4])
    yield "png of too few rows", data(zlib.compress(rows[: 20 * (3 * WIDTH + 1)]))
    yield "png of too many rows", data(zlib.compress(rows + rows))
    yield "png with more after its stream", data(packed + b"more")
    yield "png not compressed", data(zlib.compress(rows, 0))
    yield "png with a small window", data(_deflate(rows, 9))
    yield "png of no zlib", data(b"no zlib stream")
    damaged = bytearray(packed)
    damaged[middle] ^= 0xFF
    yield "png with a wrong byte", data(bytes(damaged))
    for number in (1, 2, 3, 4, 5):
        filtered = bytearray(rows)
        filtered[:: 3 * WIDTH + 1] = bytes([number]) * HEIGHT
        yield f"png with filter {number}", data(zlib.compress(bytes(filtered)))
    for name, fields in {
        "compression 1": (8, 2, 1, 0, 0),
        "filters 64": (8, 2, 0, 64, 0),
        "interlace 2": (8, 2, 0, 0, 2),
        "depth 3": (3, 0),
        "rgb of 4 bit": (4, 2),
        "colour 5": (8, 5),
    }.items():
        yield f"png of {name}", join_png(png_header(HEIGHT, WIDTH, *fields), image, end)
    yield "png of no width", join_png(png_header(HEIGHT, 0, 8, 2), image, end)
    yield "png of no height", join_png(png_header(0, WIDTH, 8, 2), image, end)
    yield "png with two headers", join_png(head, head, image, end)
    yield "png with text before its header", join_png(text, head, image, end)
    yield "png without its palette", png(pixels(8, 1), 8, 3)
    yield "png beyond its palette", png(pixels(8, 1), 8, 3, _palette(4))
    yield "png of half a colour", png(pixels(1, 1), 8, 3, chunk(b"PLTE", bytes(7)))
    yield (
        "png with alpha beyond its palette",
        png(pixels(2, 1), 8, 3, _palette(2), chunk(b"tRNS", bytes(range(99)))),
    )
    yield (
        "png with alpha before its palette",
        png(pixels(2, 1), 8, 3, chunk(b"tRNS", bytes(2)), _palette(2)),
    )
    yield "png with a short transparent colour", png(values, 8, 2, chunk(b"tRNS", bytes(2)))
    yield "png with a transparent colour of 16 bit", png(values, 8, 2, chunk(b"tRNS", b"\xff" * 6))
    yield "png gray 1 bit clear in 16", png(pixels(1, 1), 1, 0, chunk(b"tRNS", b"\xff\xff"))
    yield "png with a gigantic chunk", whole[:-12] + b"\x7f\xff\xff\xfftEXt"
    yield "png with a chunk of no name", join_png(head, chunk(b"\0\1\2\3", b"x"), image, end)


def _deflate(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return packer.compress(data) + packer.flush()


def _jpegs_by_pillow() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "L", "CMYK"):
        image = noise_image(5, HEIGHT, WIDTH, mode)
        for subsampling, progressive in product(("4:4:4", "4:2:2", "4:2:0"), (False, True)):
            options = {"subsampling": subsampling, "progressive": progressive}
            words = [mode, subsampling, *["progressive"] * progressive]
            for name, more in {
                "": {},
                "optimized": {"optimize": True},
                "restarting": {"restart_marker_blocks": 1},
            }.items():
                file = io.BytesIO()
                image.save(file, "JPEG", **options, **more)
                yield " ".join(["jpeg", *words, *[name] * bool(name)]), file.getvalue()
    for quality in (1, 100):
        file = io.BytesIO()
        noise_image(6, HEIGHT, WIDTH).save(file, "JPEG", quality=quality)
        yield f"jpeg of quality {quality}", file.getvalue()
    file = io.BytesIO()
    noise_image(7, HEIGHT, WIDTH).save(file, "JPEG", keep_rgb=True)
    yield "jpeg kept RGB", file.getvalue()
    file = io.BytesIO()
    others = [noise_image(8, HEIGHT, WIDTH)]
    noise_image(7, HEIGHT, WIDTH).save(file, "MPO", save_all=True, append_images=others)
    yield "jpeg of two pictures", file.getvalue()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    noise_image(7, HEIGHT, WIDTH).save(file, "JPEG", icc_profile=profile * 200)
    yield "jpeg with a large profile", file.getvalue()


_FACTORS = {
    "4:4:4": [(1, 1), (1, 1), (1, 1)],
    "4:2:2": [(2, 1), (1, 1), (1, 1)],
    "4:2:0": [(2, 2), (1, 1), (1, 1)],
    "4:4:0": [(1, 2), (1, 1), (1, 1)],
    "4:1:1": [(4, 1), (1, 1), (1, 1)],
    "4:1:0": [(4, 2), (1, 1), (1, 1)],
    "1x4": [(1, 4), (1, 1), (1, 1)],
    "3x1": [(3, 1), (1, 1), (1, 1)],
    "2x2 of all": [(2, 2), (2, 2), (2, 2)],
    "1x2 of all": [(1, 2), (1, 2), (1, 2)],
    "chroma 2x1": [(2, 2), (2, 1), (2, 1)],
    "chroma 1x2": [(2, 2), (1, 2), (1, 2)],
    "chroma differs": [(2, 2), (2, 1), (1, 2)],
    "chroma only": [(1, 1), (2, 2), (2, 2)],
    "crossed": [(2, 1), (1, 2), (1, 1)],
    "halves of three": [(3, 2), (2, 1), (2, 1)],
    "gray": [(1, 1)],
    "gray 2x2": [(2, 2)],
    "gray 4x1": [(4, 1)],
    "two channels": [(1, 1), (1, 1)],
    "cmyk": [(1, 1)] * 4,
    "cmyk 4:2:0": [(2, 2), (1, 1), (1, 1), (2, 2)],
}


def _jpegs_of_every_kind() -> Iterator[tuple[str, bytes]]:
    for name, factors in _FACTORS.items():
        yield f"jpeg {name}", jpeg(HEIGHT, WIDTH, factors, JFIF)
        yield f"jpeg {name} scan by scan", jpeg(HEIGHT, WIDTH, factors, JFIF, interleaved=False)
        yield f"jpeg {name} restarting", jpeg(HEIGHT, WIDTH, factors, JFIF, restart=2)
    for transform, name in product((0, 1, 2, 3), ("4:4:4", "4:2:0", "gray", "cmyk")):
        for jfif in (True, False):
            words = f"jpeg {name} adobe {transform}{' jfif' * jfif}"
            headers = [JFIF] * jfif + [adobe(transform)]
            yield words, jpeg(HEIGHT, WIDTH, _FACTORS[name], *headers)
    for ids in [(1, 2, 3), (0, 1, 2), (82, 71, 66), (34, 35, 36), (89, 67, 67)]:
        for jfif in (True, False):
            words = f"jpeg of components {ids}{' jfif' * jfif}"
            yield words, jpeg(HEIGHT, WIDTH, _FACTORS["4:2:0"], *[JFIF] * jfif, ids=ids)
    for marker in range(0xC0, 0xD0):
        if marker not in (0xC4, 0xC8, 0xCC):
            yield (
                f"jpeg of frame {marker:X}",
                jpeg(HEIGHT, WIDTH, _FACTORS["4:2:0"], JFIF, frame=marker),
            )
    for precision in (2, 7, 9, 12, 16):
        yield (
            f"jpeg of {precision} bit",
            jpeg(HEIGHT, WIDTH, _FACTORS["4:4:4"], JFIF, frame=0xC1, precision=precision),
        )


def _odd_jpegs() -> Iterator[tuple[str, bytes]]:
    start, jfif, *head, rest = split_jpeg(jpeg(HEIGHT, WIDTH, _FACTORS["4:2:0"], JFIF, seed=1))
    body = b"".join([*head, rest])
    for orientation in range(10):
        yield f"jpeg turned {orientation}", start + exif(orientation) + body
    between: dict[str, bytes] = {
        "two stray bytes": b"he",
        "a stray byte": b"h",
        "many stray bytes": b"here is text" * 40,
        "FF00": b"\xff\0",
        "FF00 twice": b"\xff\0\xff\0",
        "fill bytes": b"\xff\xff\xff",
        "a restart": b"\xff\xd0",
        "a temporary": b"\xff\x01",
        "a second start": b"\xff\xd8",
        "a short adobe": b"\xff\xee\0\5Ado",
        "an adobe cut": segment(0xEE, b"Adobe\0d\0\0"),
        "an adobe too long": segment(0xEE, b"Adobe\0d\0\0\0\0\1more"),
        "another APP14": segment(0xEE, b"something else"),
        "an adobe called APP13": segment(0xED, b"Photoshop 3.0\0"),
        "a broken APP13": segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\xff\xff"),
        "an empty comment": segment(0xFE, b""),
        "an end in a comment": segment(0xFE, END + b"x"),
        "a comment of 64 kB": segment(0xFE, bytes(65_000)),
        "empty APP0": segment(0xE0, b""),
        "empty APP1": segment(0xE1, b""),
        "broken exif": segment(0xE1, b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"),
        "exif of nothing": segment(0xE1, b"Exif\0\0"),
        "xmp": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        "a profile in part": segment(0xE2, b"ICC_PROFILE\0\1\2abc"),
        "mpf of nothing": segment(0xE2, b"MPF\0"),
        "a broken mpf": segment(0xE2, b"MPF\0MM\0\x2a\0\0\0\x08\0\x01"),
        "JFXX": segment(0xE0, b"JFXX\0\x10"),
        "AVI1": segment(0xE0, b"AVI1\0\0\0\0"),
        "JPG0": b"\xff\xf0\0\4ab",
        "a wrong length": b"\xff\xfe\0\1",
        "no length": b"\xff\xfe\0\0",
        "an unused table": segment(0xDB, b"\3" + bytes([9] * 64)),
        "a table of 16 bit": segment(0xDB, b"\x13" + bytes([0, 9] * 64)),
        "a table numbered 4": segment(0xDB, b"\4" + bytes([9] * 64)),
        "half a table": segment(0xDB, b"\3" + bytes([9] * 30)),
        "a table of zeros": segment(0xDB, b"\3" + bytes(64)),
        "a broken code": segment(0xC4, b"\0" + bytes([255] * 16)),
        "an arithmetic table": segment(0xCC, b"\0\x10"),
        "a restart interval of 0": segment(0xDD, b"\0\0"),
        "a wrong restart interval": segment(0xDD, b"\0"),
        "a number of lines": segment(0xDC, struct.pack(">H", HEIGHT)),
        "an end": END,
        "an early scan": segment(_SCAN, b"\1\1\0\0\x3f\0"),
    }
    for name, data in between.items():
        yield f"jpeg with {name} first", start + data + jfif + body
        yield (
            f"jpeg with {name} before its frame",
            start + jfif + head[0] + data + b"".join([*head[1:], rest]),
        )
        yield f"jpeg with {name} before its scan", start + jfif + b"".join(head) + data + rest
    yield "jpeg without JFIF", start + body
    yield "jpeg with JFIF of another unit", start + jfif.replace(b"\1\1\0", b"\1\2\7") + body
    yield (
        "jpeg with its tables last",
        start + jfif + head[1] + head[0] + b"".join([*head[2:], rest]),
    )


def _damaged_jpegs() -> Iterator[tuple[str, bytes]]:
    whole = jpeg(HEIGHT, WIDTH, _FACTORS["4:2:0"], JFIF, seed=2)
    start, jfif, tables, frame, *codes, rest = split_jpeg(whole)
    before = start + jfif + tables
    coded = rest[14:-2]
    file = io.BytesIO()
    noise_image(9, HEIGHT, WIDTH).save(file, "JPEG", progressive=True)
    progressive = file.getvalue()
    by_parts = jpeg(HEIGHT, WIDTH, _FACTORS["4:4:4"], JFIF, interleaved=False)
    yield "jpeg without its end", whole[:-2]
    yield "jpeg with half its end", whole[:-1]
    for n in (1, 2, 3, 10, 50, 150):
        yield f"jpeg cut by {n} more", whole[: -2 - n]
        yield f"jpeg cut by {n} more, then ended", whole[: -2 - n] + END
    yield "jpeg of headers", whole[: -len(rest)]
    yield "jpeg without pixels", whole[: -len(coded) - 2]
    yield "jpeg without pixels, ended", whole[: -len(coded) - 2] + END
    yield "jpeg of a start", start
    yield "jpeg of a start and an end", start + END
    yield "jpeg of a frame", before + frame
    for n in (2, 20, 100, 400):
        yield f"progressive jpeg cut by {n}", progressive[:-n]
        yield f"progressive jpeg cut by {n}, then ended", progressive[:-n] + END
        yield f"jpeg of three scans cut by {n}", by_parts[:-n]
        yield f"jpeg of three scans cut by {n}, then ended", by_parts[:-n] + END
    yield "jpeg whose last scan is lost", by_parts[: by_parts.rindex(b"\xff\xda")] + END
    yield "jpeg with a scan twice", by_parts[:-2] + by_parts[by_parts.rindex(b"\xff\xda") :]
    yield "jpeg with junk after it", whole + b"junk after the end"
    yield "jpeg with zeros after it", whole + bytes(1000)
    yield "jpeg twice", whole + whole
    yield "jpeg with zeros instead of its end", whole[:-2] + bytes(100)
    yield "jpeg with junk instead of its end", whole[:-2] + b"junk and more of it"
    rng = np.random.default_rng(3)
    for number in range(12):
        damaged = bytearray(whole)
        damaged[len(whole) - 2 - rng.integers(1, len(coded))] = rng.integers(0, 255)
        yield f"jpeg with a wrong byte {number}", bytes(damaged)
    for number in range(6):
        damaged = bytearray(progressive)
        damaged[-int(rng.integers(3, 400))] = rng.integers(0, 255)
        yield f"progressive jpeg with a wrong byte {number}", bytes(damaged)
    restarting = jpeg(HEIGHT, WIDTH, _FACTORS["4:2:0"], JFIF, restart=1, seed=2)
    yield "jpeg with a wrong restart", restarting.replace(b"\xff\xd1", b"\xff\xd5", 1)
    yield "jpeg with a lost restart", restarting.replace(b"\xff\xd1", b"", 1)
    at = restarting.index(b"\xff\xd1")
    yield "jpeg with a lost stretch", restarting[: at - 9] + restarting[at:]
    yield "jpeg with stray bytes in its scan", whole[:-40] + b"\xff\xfe\0\4ab" + whole[-40:]
    yield "jpeg with zeros in its scan", whole[:-90] + bytes(50) + whole[-40:]
    yield "jpeg with fill bytes in its scan", restarting.replace(b"\xff\xd1", b"\xff\xff\xd1", 1)
    yield "jpeg with lines in its scan", whole[:-2] + segment(0xDC, struct.pack(">H", HEIGHT)) + END

    def reframed(change: Callable[[bytearray], None]) -> bytes:
        changed = bytearray(frame)
        change(changed)
        return before + bytes(changed) + b"".join([*codes, rest])

    yield "jpeg of no height", reframed(lambda f: f.__setitem__(slice(5, 7), b"\0\0"))
    yield "jpeg of no width", reframed(lambda f: f.__setitem__(slice(7, 9), b"\0\0"))
    yield "jpeg of no components", reframed(lambda f: f.__setitem__(9, 0))
    yield "jpeg of a missing table", reframed(lambda f: f.__setitem__(12, 3))
    yield "jpeg of factor 0", reframed(lambda f: f.__setitem__(11, 0x01))
    yield "jpeg of factor 5", reframed(lambda f: f.__setitem__(11, 0x51))
    yield "jpeg with two frames", before + frame + frame + b"".join([*codes, rest])
    yield "jpeg without a frame", before + b"".join([*codes, rest])
    yield "jpeg without its tables", start + jfif + frame + b"".join([*codes, rest])
    yield "jpeg without its codes", before + frame + rest
    yield "jpeg of an unknown component", whole[: -len(rest) + 5] + b"\7" + whole[-len(rest) + 6 :]
    yield "jpeg of a scan of no codes", whole.replace(b"\0\x3f\0", b"\0\0\0", 1)


def _other_formats() -> Iterator[tuple[str, bytes]]:
    image = noise_image(0, HEIGHT, WIDTH)
    Image.init()
    for name in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000", "TGA", "AVIF"):
        if name in Image.SAVE:  # Pillow writes AVIF since 11.3
            yield f"{name.lower()}", encode(image, name)
    whole = encode(image, "PNG")
    yield "nothing", b""
    yield "text", b"<html>404 Not Found</html>"
    yield "zeros", bytes(1000)
    yield "png as text", whole.replace(b"\r\n", b"\n")
    yield "png after a byte order mark", b"\xef\xbb\xbf" + whole
    yield "jpeg after a line", b"\n" + encode(image)
    yield "jpeg within a png", join_png(*split_png(whole)[:1], chunk(b"IDAT", encode(image)))
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
