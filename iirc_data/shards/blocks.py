"""Blocks: runs of whole samples in a shard, the unit of fetching, checking and eviction.

A sample belongs to the block in whose piece of :data:`BLOCK_SIZE` bytes its header starts. Every
sample therefore lies in exactly one block, and the blocks of a shard together are the shard. The
layout follows from the sample table; only the checksums need a file of their own.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.files import write_atomically
from iirc_data.reading import open_regular
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.npz import check_uncompressed
from iirc_data.shards.table import HEADER_SIZE, SampleTable

BLOCK_SIZE = 1 << 22
"""Bytes per block, but for the rest of the last sample that starts in it."""

BLOCKS_NAME = "blocks.npz"

_SHA256_BYTES = 32
_LARGEST_BLOCK_SIZE = 1 << 40


@dataclass(frozen=True)
class BlockLayout:
    """Where the blocks of a dataset lie, in the order of the sample table.

    Attributes:
        first_row: int64 (B,), sample id of the first sample of each block; ascending.
        shard: int64 (B,), index of the block's shard in :attr:`Manifest.shards`.
        start: int64 (B,), bytes from the shard's start to the block.
        stop: int64 (B,), bytes from the shard's start to the end of the block.
    """

    first_row: NDArray[np.int64]
    shard: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first_row)

    def of_samples(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the block that holds each sample, int64 (N,)."""
        return np.searchsorted(self.first_row, sample_ids, side="right") - 1


def block_layout(table: SampleTable, manifest: Manifest, block_size: int | None) -> BlockLayout:
    """Return the blocks of a dataset, a function of its sample table.

    Args:
        table: The dataset's sample table, which matches the manifest.
        manifest: The dataset's manifest.
        block_size: Bytes per block; None for one block per shard. Tables whose rows do not follow
            the order of the bytes get one block per shard, too.
    """
    shard_bytes = np.array([shard.bytes for shard in manifest.shards], np.int64)
    shard = table.shard.astype(np.int64)
    header = table.offset - HEADER_SIZE
    if not len(table):
        return BlockLayout(*[np.empty(0, np.int64)] * 4)
    is_first = np.r_[True, shard[1:] != shard[:-1]]
    is_new = is_first
    if block_size is not None:
        after = header[1:] < table.offset[:-1] + table.size[:-1]
        if not (after & ~is_first[1:]).any():
            piece = header // block_size
            is_new = is_first | np.r_[True, piece[1:] != piece[:-1]]
    rows = np.flatnonzero(is_new)
    start = np.where(is_first[rows], 0, header[rows])
    is_last = np.r_[is_first[rows][1:], True]
    stop = np.where(is_last, shard_bytes[shard[rows]], np.r_[start[1:], 0])
    return BlockLayout(rows, shard[rows], start, stop)


def blocks_of_dataset(table: SampleTable, manifest: Manifest) -> BlockLayout:
    """Return the blocks of :data:`BLOCK_SIZE` bytes, which are those of every new dataset."""
    return block_layout(table, manifest, BLOCK_SIZE)


@dataclass(frozen=True)
class BlockChecksums:
    """The content of ``blocks.npz``: a checksum of every block.

    Attributes:
        block_size: Bytes per block, see :func:`block_layout`.
        sha256: uint8 (B, 32), SHA-256 of each block, in the order of the layout.
    """

    block_size: int
    sha256: NDArray[np.uint8]

    def digest(self, manifest: Manifest) -> str:
        """Return a digest of the checksums and of the files that they belong to."""
        digest = hashlib.sha256(f"{self.block_size} {manifest.table_sha256}".encode())
        for shard in manifest.shards:
            digest.update(shard.sha256.encode())
        digest.update(np.ascontiguousarray(self.sha256).data)
        return digest.hexdigest()

    def save(self, root: Path, manifest: Manifest) -> None:
        """Write ``blocks.npz`` into a shard folder, atomically."""
        of = np.frombuffer(bytes.fromhex(self.digest(manifest)), np.uint8)
        size = np.array([self.block_size], "<i8")
        with write_atomically(root / BLOCKS_NAME) as file:
            np.savez(file, block_size=size, sha256=self.sha256, digest=of)

    @classmethod
    def load(cls, file: Any, manifest: Manifest, where: str) -> Self:
        """Read the checksums of a dataset.

        Args:
            file: Path or binary file of the ``.npz``.
            manifest: The dataset's manifest.
            where: Name of the file in error messages.

        Raises:
            ShardError: The file is missing, damaged, or belongs to another dataset.
        """
        try:
            if isinstance(file, str | Path):
                with io.BufferedReader(open_regular(file)) as opened:
                    return cls.load(opened, manifest, where)
            with np.load(file, allow_pickle=False) as archive:
                check_uncompressed(archive.zip)
                size, sha256, stored = (archive[k] for k in ("block_size", "sha256", "digest"))
        except ShardError:
            raise
        except FileNotFoundError as error:
            raise ShardError(f"{where} is missing") from error
        except Exception as error:  # numpy and zipfile raise many types on damaged files
            raise ShardError(f"{where} is not a readable file of block checksums") from error
        is_shaped = sha256.dtype == np.uint8 and sha256.shape[1:] == (_SHA256_BYTES,)
        if size.shape != (1,) or size.dtype.kind != "i" or not is_shaped:
            raise ShardError(f"{where} is not a file of block checksums: write it again")
        checksums = cls(int(size[0]), sha256)
        digest = checksums.digest(manifest)
        is_own = stored.tobytes().hex() == digest == (manifest.blocks_sha256 or digest)
        if not 1 <= checksums.block_size <= _LARGEST_BLOCK_SIZE or not is_own:
            raise ShardError(
                f"{where} does not match its manifest: copy it again, or remove it and run "
                "iirc data index"
            )
        return checksums


def need_checksums(manifest: Manifest) -> bool:
    """Return whether a shard is so large that its blocks have checksums of their own."""
    return any(shard.bytes > BLOCK_SIZE for shard in manifest.shards)


def largest_blocks_file(manifest: Manifest) -> int:
    """Return an upper bound on the size in bytes of a dataset's ``blocks.npz``."""
    samples = sum(shard.samples for shard in manifest.shards)  # no more blocks than samples
    return samples * _SHA256_BYTES + (1 << 16)


def checksums_of(
    root: Path, table: SampleTable, manifest: Manifest, block_size: int | None = None
) -> BlockChecksums:
    """Compute the checksums of a shard folder's blocks.

    Args:
        root: A complete shard folder.
        table: Its sample table.
        manifest: Its manifest.
        block_size: Bytes per block; by default :data:`BLOCK_SIZE`.

    Raises:
        ShardError: A shard is missing, or does not match its digest in the manifest.
    """
    block_size = BLOCK_SIZE if block_size is None else block_size
    layout = block_layout(table, manifest, block_size)
    ends = np.searchsorted(layout.shard, np.arange(len(manifest.shards) + 1)).tolist()
    digests: list[bytes] = []
    for shard, (first, last) in zip(manifest.shards, pairwise(ends), strict=True):
        path, whole = root / shard.path, hashlib.sha256()
        try:
            with io.BufferedReader(open_regular(path)) as file:
                for size in (layout.stop - layout.start)[first:last].tolist():
                    block = hashlib.sha256()
                    for part in _parts(cast(BinaryIO, file), size):
                        block.update(part)
                        whole.update(part)
                    digests.append(block.digest())
        except OSError as error:
            raise ShardError(
                f"cannot read shard {path}: {error.strerror or error}; block checksums need a "
                "complete dataset"
            ) from error
        if whole.hexdigest() != shard.sha256:
            raise ShardError(f"{path} does not match its digest: run iirc data verify {root}")
    return BlockChecksums(block_size, as_checksums(digests))


def write_checksums(
    root: Path, table: SampleTable, manifest: Manifest, *, pin: bool = False
) -> BlockChecksums | None:
    """Write ``blocks.npz`` into a shard folder, unless it is there.

    Args:
        root: A complete shard folder.
        table: Its sample table.
        manifest: Its manifest.
        pin: Record the digest of ``blocks.npz`` in ``manifest.json``, too.

    Returns:
        The checksums; None if the shards are so small that they need none.

    Raises:
        ShardError: A shard is missing or damaged, or the files cannot be written.
    """
    if not need_checksums(manifest):
        return None
    path = root / BLOCKS_NAME
    try:
        if path.exists():
            checksums = BlockChecksums.load(path, manifest, str(path))
        else:
            checksums = checksums_of(root, table, manifest)
            checksums.save(root, manifest)
        if pin:
            digest = checksums.digest(manifest)
            manifest.model_copy(update={"blocks_sha256": digest}).save(root)
    except OSError as error:
        raise ShardError(f"cannot write {path}: {error.strerror or error}") from error
    return checksums


def as_checksums(digests: list[bytes]) -> NDArray[np.uint8]:
    """Return digests as uint8 (B, 32)."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _SHA256_BYTES)


def _parts(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (part := file.read(min(size, BLOCK_SIZE))):
        size -= len(part)
        yield part
