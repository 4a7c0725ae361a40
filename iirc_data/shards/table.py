"""The sample table: one row per sample, as numpy columns. A row number is a sample id."""

import hashlib
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.files import write_atomically

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
"""Pillow's names of the stored images' pixel formats; the table's ``mode`` indexes this tuple.

``RGB;16B`` is RGB of 16 bits a channel, which Pillow calls ``RGB`` and other decoders round
otherwise.
"""

TABLE_NAME = "index.npz"


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
        """Make a table of columns, cast to the table's dtypes.

        Raises:
            ShardError: Columns are missing, of unequal length, not one-dimensional, or do not
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
            where: What to call it in an error.

        Raises:
            ShardError: The file is missing, damaged, or not a sample table.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                columns = {name: archive[name] for name in archive.files}
        except FileNotFoundError as error:
            raise ShardError(f"{where} is missing: the shard folder is incomplete") from error
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ShardError(f"{where} is not a readable sample table: {error}") from error
        return cls.from_columns(columns)
