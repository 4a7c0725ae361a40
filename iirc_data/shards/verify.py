"""Checking a shard folder: every digest, and every row of the sample table."""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.files import file_sha256
from iirc_data.shards.blocks import BLOCKS_NAME, BlockChecksums, block_layout, checksums_of
from iirc_data.shards.headers import header_problems
from iirc_data.shards.manifest import Manifest, Shard
from iirc_data.shards.parallel import (
    BytesDone,
    TotalProgress,
    for_each,
    no_progress,
)
from iirc_data.shards.pixel_digest import check_pixels
from iirc_data.shards.shard_file import ShardFile
from iirc_data.shards.store import read_manifest
from iirc_data.shards.table import TABLE_NAME, SampleTable, load_table

_READ_AT_ONCE = 1 << 20

Names = NDArray[np.bytes_]


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found.

    Attributes:
        manifest: The folder's manifest.
        absent: Paths of missing shards, as in a partial copy of a dataset.
        problems: The problems, each with the name of the file.
    """

    manifest: Manifest
    absent: list[str]
    problems: list[str]


def verify(
    root: PathLike,
    *,
    workers: int | None = None,
    progress: TotalProgress = no_progress,
) -> Verification:
    """Check a shard folder.

    For each shard this checks its size, its SHA-256 and, if the manifest has one, the digest of
    its pixels. It also checks that the members of the shard are exactly the samples in the table:
    regular files with the offset, size and order of their rows, image names, unique keys, and
    images with the height, width and mode of their rows.

    Args:
        root: The shard folder.
        workers: Number of threads; by default a few more than processors.
        progress: Called with the number of bytes read so far and the total number of bytes.

    Returns:
        The manifest, the missing shards, and all problems found.

    Raises:
        ShardError: The folder has no valid manifest.
    """
    root = Path(root)
    manifest = read_manifest(root)
    problems = []
    table: SampleTable | None = None
    try:
        table = load_table(root / TABLE_NAME, manifest, str(root / TABLE_NAME))
    except ShardError as error:
        problems.append(str(error))
    ends = np.cumsum([0, *(shard.samples for shard in manifest.shards)]).tolist()
    absent = [shard.path for shard in manifest.shards if not (root / shard.path).exists()]
    jobs = [
        (shard, slice(start, stop))
        for shard, start, stop in zip(manifest.shards, ends[:-1], ends[1:], strict=True)
        if shard.path not in set(absent)
    ]

    def check(job: tuple[Shard, slice], advance: BytesDone) -> list[str]:
        shard, rows = job
        problems = _shard_problems(root, shard, manifest, table, rows, advance)
        return [f"{root / shard.path} {problem}" for problem in problems]

    if table is not None and (root / BLOCKS_NAME).exists():
        problems += _checksum_problems(root, table, manifest, complete=not absent)
    found = for_each(
        check,
        jobs,
        workers=workers,
        total=sum(shard.bytes for shard, _ in jobs),
        progress=progress,
    )
    return Verification(manifest, absent, problems + [text for texts in found for text in texts])


def _checksum_problems(
    root: Path, table: SampleTable, manifest: Manifest, *, complete: bool
) -> list[str]:
    path = root / BLOCKS_NAME
    try:
        checksums = BlockChecksums.load(path, manifest, str(path))
        n_blocks = len(block_layout(table, manifest, checksums.block_size))
        if len(checksums.sha256) != n_blocks:
            return [f"{path} has {len(checksums.sha256)} checksums for {n_blocks} blocks"]
        if complete:
            expected = checksums_of(root, table, manifest, checksums.block_size)
            if not np.array_equal(expected.sha256, checksums.sha256):
                return [f"{path} contains wrong checksums: remove it and run iirc data index"]
    except ShardError as error:
        return [str(error)] if str(path) in str(error) else []  # others are found by shard
    return []


def _shard_problems(
    root: Path,
    shard: Shard,
    manifest: Manifest,
    table: SampleTable | None,
    rows: slice,
    advance: BytesDone,
) -> list[str]:
    path = root / shard.path
    try:
        if (size := path.stat().st_size) != shard.bytes:
            advance(shard.bytes)
            return [f"has {size} bytes, the manifest says {shard.bytes}"]
        if file_sha256(path, advance) != shard.sha256:
            return ["does not match its digest in the manifest: damaged or replaced"]
        check_pixels(path, shard)
        if table is None:
            return []
        members = table.offset[rows], table.size[rows], manifest.image_formats
        return member_problems(path, *members) or header_problems(path, table, rows)
    except ShardError as error:
        return [str(error)]
    except OSError as error:
        return [f"cannot be read: {error.strerror or error}"]


def member_problems(
    path: Path,
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
    image_formats: Sequence[str],
) -> list[str]:
    """Return the differences between a tar's members and its rows of the sample table.

    Args:
        path: The tar.
        offset: int64 (N,), offsets of the images in bytes; within the tar, multiples of 512.
        size: int64 (N,), sizes of the images in bytes; within the tar.
        image_formats: The extensions that members may have.
    """
    names = _names_of_back_to_back_members(path, offset, size)
    if names is None:
        try:
            names = _names_by_walking(path, offset, size)
        except (tarfile.TarError, ValueError) as error:
            return [f"is not the tar that the sample table describes: {error}"]
    extensions = [f".{extension}".encode() for extension in image_formats]
    is_image = np.logical_or.reduce([np.strings.endswith(names, name) for name in extensions])
    is_plain = (np.strings.count(names, b".") == 1) & (np.strings.count(names, b"/") == 0)
    keys, counts = np.unique(np.strings.partition(names, b".")[0], return_counts=True)
    return [
        f"contains member {_text(name)!r}, expected <key>.<{'|'.join(image_formats)}>"
        for name in names[~(is_image & is_plain)][:1]
    ] + [f"contains the key {_text(key)!r} more than once" for key in keys[counts > 1][:1]]


def _names_of_back_to_back_members(
    path: Path, offset: NDArray[np.int64], size: NDArray[np.int64]
) -> Names | None:
    """Return the members' names if the tar is a plain sequence of header, image, …, zeros.

    Return None for any other tar, such as one with extended headers for long names.
    """
    shard = ShardFile(path)
    if shard.size % tarfile.BLOCKSIZE:
        return None
    first = offset // tarfile.BLOCKSIZE
    after = first - (-size // tarfile.BLOCKSIZE)
    if not np.array_equal(first, np.r_[1, after[:-1] + 1]):
        return None
    if _has_data_after(shard, int(after[-1]) * tarfile.BLOCKSIZE):
        return None
    starts = ((first - 1) * tarfile.BLOCKSIZE).tolist()
    headers = np.stack([shard.read(start, tarfile.BLOCKSIZE) for start in starts])
    names = headers[:, :100].copy()
    checksum = _octal(headers[:, 148:154])
    headers[:, 148:156] = ord(" ")
    well_formed = (
        (headers.sum(axis=1) == checksum)
        & (_octal(headers[:, 124:135]) == size)
        & (headers[:, 156] == ord(tarfile.REGTYPE))
        & (headers[:, 345] == 0)  # the prefix field for long names is empty
        & ~((names[:, :-1] == 0) & (names[:, 1:] != 0)).any(
            axis=1
        )  # nothing after the end of the name
    )
    return names.view("S100").ravel() if well_formed.all() else None


def _octal(digits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Parse octal numbers, uint8 (N, digits); -1 for anything but plain digits."""
    values = digits.astype(np.int64) - ord("0")
    powers = 8 ** np.arange(digits.shape[1] - 1, -1, -1, dtype=np.int64)
    return np.where(((values >= 0) & (values < 8)).all(axis=1), values @ powers, -1)


def _names_by_walking(path: Path, offset: NDArray[np.int64], size: NDArray[np.int64]) -> Names:
    """Return the members' names by reading the headers one by one.

    Raises:
        ValueError: The members do not match the rows.
        tarfile.TarError: The tar is damaged.
    """
    names = []
    rows = list(zip(offset.tolist(), size.tolist(), strict=True))
    with tarfile.open(path, "r:") as archive:
        for row, member in zip_longest(rows, archive):
            if member is None:
                raise ValueError(f"there is no member at byte {row[0]}, where a row has one")
            if not member.isreg() or row != (member.offset_data, member.size):
                raise ValueError(f"member {member.name!r} does not match its row")
            names.append(member.name.encode(errors="surrogateescape"))
        end = archive.offset
    if _has_data_after(ShardFile(path), end):
        raise ValueError("data follow the last member")
    return np.array(names)


def _has_data_after(shard: ShardFile, end: int) -> bool:
    """Return whether any byte after a position is not zero."""
    starts = range(end, shard.size, _READ_AT_ONCE)
    return any(shard.read(start, min(_READ_AT_ONCE, shard.size - start)).any() for start in starts)


def _text(name: bytes) -> str:
    return bytes(name).decode(errors="replace")
