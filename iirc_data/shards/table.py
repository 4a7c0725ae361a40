"""The sample table: one row per sample, as numpy columns. A row number is a sample id."""

import hashlib
import io
from dataclasses import dataclass, fields
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iirc_data.errors import ShardError
from iirc_data.files import write_atomically
from iirc_data.reading import open_regular
from iirc_data.shards.columns import Column, RunColumn
from iirc_data.shards.digest_thread import DigestThread
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.npz import stored_columns
from iirc_data.shards.table_columns import (
    COLUMN_DTYPES,
    ROWS_AT_ONCE,
    Digested,
    Pieces,
    not_digested,
    packed_columns,
)

IMAGE_MODES = (
    *("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I", "I;16", "I;16B", "F", "PA"),
    "RGB;16B",
)
"""Pillow's names for the pixel formats of stored images; the table's ``mode`` is an index here.

``RGB;16B`` and ``I;16B`` are RGB and grayscale with 16 bits per channel, see
:mod:`iirc_data.sources.images`.
"""

TABLE_NAME = "index.npz"

HEADER_SIZE = BLOCKSIZE
"""Bytes of the tar header directly before each image."""


@dataclass(frozen=True)
class SampleTable:
    """One row per sample, in the order of the manifest's shards.

    The columns are indexed like numpy arrays but take less memory, see
    :class:`iirc_data.shards.columns.Column`.

    Attributes:
        shard: int32 (N,), index of the sample's shard in :attr:`Manifest.shards`.
        offset: int64 (N,), bytes from the shard's start to the encoded image.
        size: int64 (N,), bytes of the encoded image.
        class_id: int32 (N,), index of the leaf class in :attr:`Manifest.classes`.
        height: int32 (N,), pixels.
        width: int32 (N,), pixels.
        mode: uint8 (N,), index into :data:`IMAGE_MODES`.
    """

    shard: Column
    offset: Column
    size: Column
    class_id: Column
    height: Column
    width: Column
    mode: Column

    def __len__(self) -> int:
        return len(self.shard)

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Self:
        """Make a table from columns, which are cast to the dtypes of the table.

        Raises:
            ShardError: Columns are missing, differ in length, are not one-dimensional, or do not
                fit the dtypes.
        """
        arrays = {name: np.asarray(column) for name, column in columns.items()}
        return cls(**packed_columns({name: Pieces(array) for name, array in arrays.items()}))

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the height and width in pixels of some rows, int32 (N, 2)."""
        return np.stack([self.height[rows], self.width[rows]], axis=1).astype(np.int32)

    def digest(self) -> str:
        """Return the SHA-256 of all columns; equal on every machine for equal tables."""
        digest = hashlib.sha256()
        for column in fields(self):
            digest.update(column.name.encode())
            for piece in Pieces(getattr(self, column.name)):
                digest.update(piece.data)
        return digest.hexdigest()

    def save(self, root: Path) -> None:
        """Write the table into a shard folder, atomically."""
        with write_atomically(root / TABLE_NAME) as file:
            np.savez(file, **{column.name: getattr(self, column.name) for column in fields(self)})

    @classmethod
    def load(cls, file: Any, where: str) -> Self:
        """Read a table.

        Args:
            file: Path or binary file of the ``.npz``.
            where: Name of the file in error messages.

        Raises:
            ShardError: The file is missing, damaged, or not a sample table.
        """
        return cls(**_load(file, where))


def load_table(file: Any, manifest: Manifest, where: str) -> SampleTable:
    """Read a dataset's sample table and check that it matches the manifest.

    Args:
        file: Path or binary file of the ``.npz``.
        manifest: The dataset's manifest.
        where: Name of the table in error messages.

    Raises:
        ShardError: The table is missing, damaged, from another dataset, or refers to bytes
            outside the shards.
    """
    with DigestThread() as digest:
        table = SampleTable(**_load(file, where, digest.update))
    if digest.hexdigest() != manifest.table_sha256:
        raise ShardError(f"{where} does not match its manifest: copy it again")
    if problems := table_problems(table, manifest):
        raise ShardError(f"{where} contradicts its manifest: {problems[0]}")
    return table


def _load(file: Any, where: str, digest: Digested = not_digested) -> dict[str, Column]:
    try:
        if isinstance(file, str | Path):
            with io.BufferedReader(open_regular(file)) as opened:
                return _load(opened, where, digest)
        return packed_columns(stored_columns(file), digest)
    except ShardError:
        raise
    except FileNotFoundError as error:
        raise ShardError(f"{where} is missing: the shard folder is incomplete") from error
    except Exception as error:  # numpy and zipfile raise many types on damaged files
        raise ShardError(f"{where} is not a readable sample table: {error}") from error


def largest_table_file(manifest: Manifest) -> int:
    """Return an upper bound on the size in bytes of a dataset's ``index.npz``."""
    row = sum(np.dtype(dtype).itemsize for dtype in COLUMN_DTYPES.values())
    return row * sum(shard.samples for shard in manifest.shards) + (1 << 16)


def table_problems(table: SampleTable, manifest: Manifest) -> list[str]:
    """Return the contradictions between a table and its manifest.

    If there are none, every row lies within its shard and has the class of its shard, and the
    rows of a shard are consecutive.
    """
    shards = manifest.shards
    n_samples = sum(shard.samples for shard in shards)
    if len(table) != n_samples:
        return [f"it has {len(table)} rows, the manifest has {n_samples} samples"]
    ends = np.cumsum([shard.samples for shard in shards])
    by_manifest = RunColumn("<i4", np.arange(len(shards)), ends)
    class_ids = {name: class_id for class_id, name in enumerate(manifest.classes)}
    shard_class = np.array([class_ids.get(shard.class_name, -1) for shard in shards], np.int64)
    shard_bytes = np.array([shard.bytes for shard in shards], np.int64)
    most_pixels = Image.MAX_IMAGE_PIXELS or np.inf
    # the extremes, which are found fast, may rule a problem out
    may_be_wrong = (
        {}
        if n_samples == 0
        else {
            "offset": table.offset.unit % BLOCKSIZE != 0 or table.offset.min() < BLOCKSIZE,
            "height or width": min(table.height.min(), table.width.min()) < 1
            or int(table.height.max()) * int(table.width.max()) > most_pixels,
            "mode": table.mode.max() >= len(IMAGE_MODES),
        }
    )
    found: dict[str, list[int]] = {}
    for start in range(0, n_samples, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        shard, offset, size = table.shard[rows], table.offset[rows], table.size[rows]
        expected = by_manifest[rows]
        if not np.array_equal(shard, expected):
            row = int(np.flatnonzero(shard != expected)[0])
            return [
                f"row {start + row} is in shard {shard[row]}, by the manifest in {expected[row]}"
            ]
        wrong = {
            "class": table.class_id[rows] != shard_class[shard],
            "offset": may_be_wrong["offset"] and (offset < BLOCKSIZE) | (offset % BLOCKSIZE != 0),
            "size": (size < 1) | (size > shard_bytes[shard] - offset),
            "height or width": may_be_wrong["height or width"]
            and (table.height[rows] < 1)
            | (table.width[rows] < 1)
            | (table.height[rows].astype(np.int64) * table.width[rows] > most_pixels),
            "mode": may_be_wrong["mode"] and table.mode[rows] >= len(IMAGE_MODES),
        }
        for name, is_wrong in wrong.items():
            if np.any(is_wrong):
                first = start + int(np.flatnonzero(is_wrong)[0])
                found.setdefault(name, [first, 0])[1] += int(is_wrong.sum())
    return [
        f"row {first} has a wrong {name} ({count} such rows)"
        for name, (first, count) in found.items()
    ]
