"""The columns of a sample table: their dtypes, and how they are packed and digested."""

from collections.abc import Callable, Iterator, Mapping
from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.shards.columns import Column, packed
from iirc_data.shards.npz import PIECE, StoredColumn

COLUMN_DTYPES: dict[str, str] = {
    "shard": "<i4",
    "offset": "<i8",
    "size": "<i8",
    "class_id": "<i4",
    "height": "<i4",
    "width": "<i4",
    "mode": "|u1",
}

# shards have one class each, and images start at multiples of a block
_PACKING: dict[str, dict[str, Any]] = {
    "shard": {"runs": True},
    "class_id": {"runs": True},
    "offset": {"unit": BLOCKSIZE},
}

Digested = Callable[[Any], None]
"""Called with a contiguous buffer that does not change any more."""


ROWS_AT_ONCE = 1 << 16
"""As many rows as stay in the processor's cache."""


def not_digested(data: Any) -> None:
    """Leave a buffer out of any digest."""


class Pieces:
    """The values of an array or column, piece by piece, as :class:`StoredColumn` has them."""

    def __init__(self, column: NDArray[Any] | Column) -> None:
        self.dtype, self.shape = column.dtype, column.shape
        self._column = column

    def __iter__(self) -> Iterator[NDArray[Any]]:
        rows = max(1, PIECE // self.dtype.itemsize)
        for start in range(0, len(self._column), rows):
            yield np.ascontiguousarray(self._column[start : start + rows])


def packed_columns(
    sources: Mapping[str, StoredColumn | Pieces], digest: Digested = not_digested
) -> dict[str, Column]:
    """Pack the columns of a table.

    Args:
        sources: The columns by name; others than those of a table are ignored.
        digest: Called with the name and the values of each column, from which
            :meth:`SampleTable.digest` is computed.

    Raises:
        ShardError: See :meth:`SampleTable.from_columns`.
    """
    for name in COLUMN_DTYPES:
        if name not in sources:
            raise ShardError(f"sample table lacks column {name!r}")
        found, shape = sources[name].dtype, sources[name].shape
        if len(shape) != 1 or (shape[0] and found.kind not in "iu"):
            raise ShardError(
                f"sample table column {name!r} is {found} {shape}, "
                "expected one dimension of integers"
            )
    if len({sources[name].shape for name in COLUMN_DTYPES}) != 1:
        raise ShardError("sample table columns differ in length")
    columns = {}
    for name, dtype in COLUMN_DTYPES.items():
        digest(name.encode())
        pieces = _digested(name, dtype, sources[name], digest)
        columns[name] = packed(dtype, sources[name].shape[0], pieces, **_PACKING.get(name, {}))
    return columns


def _digested(
    name: str, dtype: str, source: StoredColumn | Pieces, digest: Digested
) -> Iterator[NDArray[Any]]:
    for piece in source:
        values = piece.astype(dtype, copy=False)
        if values is not piece and not np.array_equal(values, piece):
            raise ShardError(f"sample table column {name!r} does not fit {dtype}")
        digest(values.data)
        for start in range(0, len(values), ROWS_AT_ONCE):
            yield values[start : start + ROWS_AT_ONCE]
