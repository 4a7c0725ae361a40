"""Writing the tars of one class."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError, SourceError
from iirc_data.files import write_atomically
from iirc_data.shards import blocks
from iirc_data.shards.manifest import Shard
from iirc_data.shards.pixel_digest import PixelDigest
from iirc_data.shards.shard_names import shard_path
from iirc_data.shards.table import IMAGE_MODES
from iirc_data.shards.tar_writer import TarWriter
from iirc_data.sources.base import Sample, Source
from iirc_data.sources.images import decode_rgb, read_header

DEFAULT_MAX_SHARD_SIZE = 1 << 30

_MODE_NUMBERS = {mode: number for number, mode in enumerate(IMAGE_MODES)}


@dataclass(frozen=True)
class WriteSettings:
    """How classes are written.

    Attributes:
        max_shard_size: Bytes of image data after which a class continues in another tar.
        check_decode: Decode every image fully, to find damaged images.
    """

    max_shard_size: int = DEFAULT_MAX_SHARD_SIZE
    check_decode: bool = False


@dataclass(frozen=True)
class ShardedClass:
    """The result of writing one class: its shards and its rows of the sample table.

    Attributes:
        shards: The tars, in order.
        rows: int64 (N, 6): shard number within the class, offset, size, height, width, mode.
        image_formats: Extensions of the images.
        blocks: SHA-256 of each block of the tars, see :mod:`iirc_data.shards.blocks`.
        is_kept: Whether an earlier, interrupted run wrote the class.
    """

    shards: list[Shard]
    rows: NDArray[np.int64]
    image_formats: frozenset[str]
    blocks: list[bytes]
    is_kept: bool = False

    @property
    def bytes(self) -> int:
        """Total size of the tars."""
        return sum(shard.bytes for shard in self.shards)


def write_class(
    source: Source,
    out: Path,
    split: str,
    class_name: str,
    settings: WriteSettings,
    *,
    check: Callable[[], None] = lambda: None,
) -> ShardedClass:
    """Write the tars of one class of one split.

    Args:
        source: The raw dataset.
        out: Shard folder.
        split: Name of the split.
        class_name: Name of the leaf class.
        settings: How to write.
        check: Called before each image and before a tar gets its final name; it may raise.

    Returns:
        The shards and the class's rows of the sample table.

    Raises:
        SourceError: The class has no images, an input file is not an image, or two input files
            share a key.
        ShardError: A tar cannot be written, for example because the disk is full.
    """
    shards: list[Shard] = []
    rows: list[tuple[int, int, int, int, int, int]] = []
    formats: set[str] = set()
    block_digests: list[bytes] = []
    origins: dict[str, str] = {}
    samples = source.samples(split, class_name)
    sample = next(samples, None)
    if sample is None:
        raise SourceError(
            f"{source.name}: class {class_name!r} of split {split!r} has no images: remove it"
        )
    while sample is not None:
        path = shard_path(split, class_name, len(shards))
        first_row, data_size = len(rows), 0
        pixels = PixelDigest() if source.encoded_here else None
        with (
            writing(out / path),
            write_atomically(out / path, durable=False) as file,
            TarWriter(file, blocks.BLOCK_SIZE) as tar,
        ):
            while sample is not None and (
                data_size == 0 or data_size + len(sample.data) <= settings.max_shard_size
            ):
                check()
                name = f"{_new_key(sample, origins)}.{sample.extension}"
                height, width, mode = read_header(sample.data, sample.origin)
                if mode not in _MODE_NUMBERS:
                    raise SourceError(f"{sample.origin} has the unsupported pixel format {mode!r}")
                if pixels is not None:
                    pixels.add(name, decode_rgb(sample))
                elif settings.check_decode:
                    decode_rgb(sample)
                place = tar.add(name, sample.data), len(sample.data)
                rows.append((len(shards), *place, height, width, _MODE_NUMBERS[mode]))
                formats.add(sample.extension)
                data_size += len(sample.data)
                sample = next(samples, None)
            check()
        block_digests += tar.blocks_sha256
        shards.append(
            Shard(
                path=path,
                class_name=class_name,
                samples=len(rows) - first_row,
                bytes=tar.size,
                sha256=tar.sha256,
                pixels_sha256=None if pixels is None else pixels.hexdigest(),
            )
        )
    return ShardedClass(shards, np.array(rows, dtype=np.int64), frozenset(formats), block_digests)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system while a file is written into a ShardError."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"cannot write {path}: {error.strerror or error}; fix that, then run the same "
            "command again: finished classes are kept"
        ) from error


def escape_key(key: str) -> str:
    """Escape dots in a key, because WebDataset splits a member's name at the first dot."""
    return key.replace("%", "%25").replace(".", "%2E")


def _new_key(sample: Sample, origins: dict[str, str]) -> str:
    key = escape_key(sample.key)
    if key in origins:
        raise SourceError(
            f"{sample.origin} and {origins[key]} share the key {sample.key!r}: rename one"
        )
    origins[key] = sample.origin
    return key
