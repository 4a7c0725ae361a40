"""Columns of integers in memory: read like numpy arrays, stored in fewer bytes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

_NARROW = tuple(np.dtype(dtype) for dtype in ("u1", "u2", "u4"))
_ROWS_PER_RUN = 16
"""Runs that are shorter on average are stored as an array."""


class Column(NDArrayOperatorsMixin, ABC):
    """A read-only column of integers that takes less memory than its array.

    Indexing returns numpy arrays and scalars of the column's dtype. Numpy's functions and
    operators, and all other attributes of an array, use the whole column as an array, which is
    made for the purpose: prefer to index first.

    Attributes:
        dtype: Data type of what indexing returns.
        unit: A number that divides all values.
    """

    ndim = 1
    unit = 1

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, rows: Any) -> Any: ...

    @property
    def shape(self) -> tuple[int]:
        """Number of rows, as an array has it."""
        return (len(self),)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a column has to be copied to become an array")
        array: NDArray[Any] = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [value[:] if isinstance(value, Column) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self[:], name)


class NarrowColumn(Column):
    """A column whose values are stored with a narrow dtype, divided by their common unit.

    Args:
        dtype: Data type of the column.
        stored: Integers (N,), the values divided by ``unit``.
        unit: What the stored values are multiplied with.
    """

    def __init__(self, dtype: DTypeLike, stored: NDArray[Any], unit: int = 1) -> None:
        super().__init__(dtype)
        stored.flags.writeable = False
        self._stored = stored
        self.unit = unit

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, rows: Any) -> Any:
        values = self._stored[rows].astype(self.dtype)
        return values if self.unit == 1 else values * self.dtype.type(self.unit)

    def min(self) -> Any:
        """Return the least value."""
        return self.dtype.type(int(self._stored.min()) * self.unit)

    def max(self) -> Any:
        """Return the greatest value."""
        return self.dtype.type(int(self._stored.max()) * self.unit)


class RunColumn(Column):
    """A column of runs of equal values.

    Args:
        dtype: Data type of the column.
        values: Integers (R,), the value of each run.
        ends: int64 (R,), the row after each run; ascending.
    """

    def __init__(self, dtype: DTypeLike, values: NDArray[Any], ends: NDArray[np.int64]) -> None:
        super().__init__(dtype)
        self.values = values.astype(self.dtype)
        self.ends = ends

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._between(start, stop)[::step] if step > 0 else self[:][rows]
        rows = np.asarray(rows)
        if rows.dtype == bool or rows.size > len(self) // _ROWS_PER_RUN:
            return self._between(0, len(self))[rows]
        if rows.size and not (rows.min() >= -len(self) and rows.max() < len(self)):
            raise IndexError(f"row {rows.max()} or {rows.min()} of {len(self)} does not exist")
        return self.values[
            np.searchsorted(self.ends, np.where(rows < 0, rows + len(self), rows), "right")
        ]

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        first, last = np.searchsorted(self.ends, [start, stop - 1], "right")
        lengths = np.diff(np.clip(self.ends[first : last + 1], start, stop), prepend=start)
        return np.repeat(self.values[first : last + 1], np.maximum(lengths, 0))


def packed(
    dtype: DTypeLike,
    n_rows: int,
    chunks: Iterable[NDArray[Any]],
    *,
    unit: int = 1,
    runs: bool = False,
) -> Column:
    """Store a column in few bytes.

    Args:
        dtype: Data type of the column.
        n_rows: Number of rows.
        chunks: The values piece by piece, of this dtype.
        unit: A number, a power of two, that is expected to divide all values.
        runs: Expect runs of equal values.

    Returns:
        The column. Values that are not as expected are stored, too, in more bytes.
    """
    column = _Runs(dtype) if runs else _Narrowed(dtype, n_rows, unit)
    for chunk in chunks:
        if len(chunk):
            column.add(chunk)
            if isinstance(column, _Runs) and column.n_runs > 1000 + column.n_rows // _ROWS_PER_RUN:
                so_far = column.finish()
                column = _Narrowed(dtype, n_rows, unit)
                column.add(so_far[:])
    return column.finish()


class _Runs:
    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._values: list[NDArray[Any]] = []
        self._starts: list[NDArray[np.int64]] = []
        self.n_rows = 0
        self.n_runs = 0

    def add(self, chunk: NDArray[Any]) -> None:
        is_new = np.empty(len(chunk), bool)
        is_new[0] = not self._values or self._values[-1][-1] != chunk[0]
        np.not_equal(chunk[1:], chunk[:-1], out=is_new[1:])
        starts = np.flatnonzero(is_new)
        if len(starts):
            self._values.append(chunk[starts])
            self._starts.append(starts + self.n_rows)
        self.n_rows += len(chunk)
        self.n_runs += len(starts)

    def finish(self) -> Column:
        if not self._values:
            return RunColumn(self._dtype, np.empty(0, self._dtype), np.empty(0, np.int64))
        starts = np.concatenate(self._starts)
        return RunColumn(
            self._dtype, np.concatenate(self._values), np.append(starts[1:], self.n_rows)
        )


class _Narrowed:
    def __init__(self, dtype: DTypeLike, n_rows: int, unit: int) -> None:
        self._dtype = np.dtype(dtype)
        self._narrower = [d for d in _NARROW if d.itemsize < self._dtype.itemsize]
        self._stored = np.empty(n_rows, self._narrower[0] if self._narrower else self._dtype)
        self._unit = unit if unit <= np.iinfo(self._dtype).max else 1
        self._done = 0

    def add(self, chunk: NDArray[Any]) -> None:
        if self._unit > 1:
            if int(np.bitwise_or.reduce(chunk)) % self._unit:
                self._widen(self._dtype)
                self._stored[: self._done] *= self._unit
                self._unit = 1
            else:
                chunk = chunk >> (self._unit.bit_length() - 1)
        low, high = int(chunk.min()), int(chunk.max())
        if low < 0 or high > np.iinfo(self._stored.dtype).max:
            fitting = (d for d in self._narrower if low >= 0 and high <= np.iinfo(d).max)
            self._widen(next(fitting, self._dtype))
        self._stored[self._done : self._done + len(chunk)] = chunk
        self._done += len(chunk)

    def finish(self) -> Column:
        return NarrowColumn(self._dtype, self._stored, self._unit)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        before = self._stored[: self._done]
        self._stored = np.empty(len(self._stored), dtype)
        self._stored[: self._done] = before
