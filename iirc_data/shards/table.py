"""The sample table: one row per sample, as numpy columns. A row number is a sample id."""

import hashlib
import io
from dataclasses import dataclass, fields
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any, Self
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iirc_data.errors import ShardError
from iirc_data.files import write_atomically
from iirc_data.reading import open_regular
from iirc_data.shards.manifest import Manifest

COLUMN_DTYPES: dict[str, str] = {
    "shard": "<i4",
    "offset": "<i8",
    "size": "<i8",
    "class_id": "<i4",
    "height": "<i4",
    "width": "<i4",
    "mode": "|u1",
}

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

    Attributes:
        shard: int32 (N,), index of the sample's shard in :attr:`Manifest.shards`.
        offset: int64 (N,), bytes from the shard's start to the encoded image.
        size: int64 (N,), bytes of the encoded image.
        class_id: int32 (N,), index of the leaf class in :attr:`Manifest.classes`.
        height: int32 (N,), pixels.
        width: int32 (N,), pixels.
        mode: uint8 (N,), index into :data:`IMAGE_MODES`.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    class_id: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    mode: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.shard)

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Self:
        """Make a table from columns, which are cast to the dtypes of the table.

        Raises:
            ShardError: Columns are missing, differ in length, are not one-dimensional, or do not
                fit the dtypes.
        """
        arrays: dict[str, NDArray[Any]] = {}
        for name, dtype in COLUMN_DTYPES.items():
            if name not in columns:
                raise ShardError(f"sample table lacks column {name!r}")
            array = np.asarray(columns[name])
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
                raise ShardError(
                    f"sample table column {name!r} is {array.dtype} {array.shape}, "
                    "expected one dimension of integers"
                )
            arrays[name] = array.astype(dtype, copy=False)
            if not np.array_equal(arrays[name], array):
                raise ShardError(f"sample table column {name!r} does not fit {dtype}")
            arrays[name].flags.writeable = False
        if len({len(array) for array in arrays.values()}) != 1:
            raise ShardError("sample table columns differ in length")
        return cls(**arrays)

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the height and width in pixels of some rows, int32 (N, 2)."""
        return np.stack([self.height[rows], self.width[rows]], axis=1).astype(np.int32)

    def digest(self) -> str:
        """Return the SHA-256 of all columns; equal on every machine for equal tables."""
        digest = hashlib.sha256()
        for column in fields(self):
            digest.update(column.name.encode())
            digest.update(np.ascontiguousarray(getattr(self, column.name)).data)
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
        try:
            if isinstance(file, str | Path):
                with io.BufferedReader(open_regular(file)) as opened:
                    return cls.load(opened, where)
            with np.load(file, allow_pickle=False) as archive:
                check_uncompressed(archive.zip)
                columns = {name: archive[name] for name in COLUMN_DTYPES if name in archive}
        except ShardError:
            raise
        except FileNotFoundError as error:
            raise ShardError(f"{where} is missing: the shard folder is incomplete") from error
        except Exception as error:  # numpy and zipfile raise many types on damaged files
            raise ShardError(f"{where} is not a readable sample table: {error}") from error
        return cls.from_columns(columns)


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
    table = SampleTable.load(file, where)
    if table.digest() != manifest.table_sha256:
        raise ShardError(f"{where} does not match its manifest: copy it again")
    if problems := table_problems(table, manifest):
        raise ShardError(f"{where} contradicts its manifest: {problems[0]}")
    return table


def check_uncompressed(archive: ZipFile) -> None:
    """Refuse compressed columns, which could expand without limit; tables are written uncompressed.

    Raises:
        ValueError: A column is compressed.
    """
    for member in archive.infolist():
        if member.compress_type != ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")


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
    samples = np.array([shard.samples for shard in shards], np.int64)
    expected = np.repeat(np.arange(len(shards)), samples)
    if not np.array_equal(table.shard, expected):
        row = int(np.flatnonzero(table.shard != expected)[0])
        return [f"row {row} is in shard {table.shard[row]}, by the manifest in {expected[row]}"]
    class_ids = {name: class_id for class_id, name in enumerate(manifest.classes)}
    shard_class = np.array([class_ids.get(shard.class_name, -1) for shard in shards], np.int64)
    shard_bytes = np.array([shard.bytes for shard in shards], np.int64)
    wrong = {
        "class": table.class_id != shard_class[table.shard],
        "offset": (table.offset < BLOCKSIZE) | (table.offset % BLOCKSIZE != 0),
        "size": (table.size < 1) | (table.size > shard_bytes[table.shard] - table.offset),
        "height or width": (table.height < 1)
        | (table.width < 1)
        | (table.height.astype(np.int64) * table.width > (Image.MAX_IMAGE_PIXELS or np.inf)),
        "mode": table.mode >= len(IMAGE_MODES),
    }
    return [
        f"row {np.flatnonzero(rows)[0]} has a wrong {name} ({rows.sum()} such rows)"
        for name, rows in wrong.items()
        if rows.any()
    ]
