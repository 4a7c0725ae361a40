"""Sorting and grouping rows; fast where equal or consecutive values come in long runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS_PER_RUN = 4
"""With shorter runs on average, sorting the rows themselves is faster."""


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return consecutive numbers, range after range.

    Args:
        starts: int64 (R,), first number of each range.
        lengths: int64 (R,), how many numbers each range has; may be 0.

    Returns:
        int64 (N,).
    """
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    numbers = np.ones(int(lengths.sum()), np.int64)
    if len(starts):  # the sum of steps needs no second large array
        numbers[np.cumsum(lengths) - lengths] = np.diff(starts, prepend=0)
        numbers[np.cumsum(lengths[:-1])] -= lengths[:-1] - 1
        np.cumsum(numbers, out=numbers)
    return numbers


@dataclass(frozen=True)
class Groups:
    """Rows (N,) grouped by value.

    Attributes:
        values: (G,), the value of each group, ascending.
        starts: int64 (G,), each group's first row, or its place in ``order``.
        lengths: int64 (G,), number of rows of each group.
        order: int64 (N,), the rows group after group, ascending within a group; None if the rows
            of every group are consecutive.
    """

    values: NDArray[Any]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    order: NDArray[np.int64] | None

    def each(self) -> list[range | NDArray[np.int64]]:
        """Return the rows of each group."""
        starts, order = self.starts.tolist(), self.order
        ends = (self.starts + self.lengths).tolist()
        if order is None:
            return [range(start, end) for start, end in zip(starts, ends, strict=True)]
        return [order[start:end] for start, end in zip(starts, ends, strict=True)]

    def rows(self, first: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return some rows of each group, group after group.

        Args:
            first: int64 (G,), position within each group of the first row.
            lengths: int64 (G,), number of rows of each group.
        """
        chosen = ranges(self.starts + first, lengths)
        return chosen if self.order is None else self.order[chosen]


def grouped(values: NDArray[Any]) -> Groups:
    """Group the rows of integers (N,)."""
    starts, lengths = _runs(values[1:] != values[:-1], len(values))
    if len(starts) * _ROWS_PER_RUN > len(values):
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        starts, lengths = _runs(ordered[1:] != ordered[:-1], len(values))
        return Groups(ordered[starts], starts, lengths, order)
    of_runs = np.argsort(values[starts], kind="stable")
    starts, lengths = starts[of_runs], lengths[of_runs]
    ordered = values[starts]
    first, n_runs = _runs(ordered[1:] != ordered[:-1], len(ordered))
    if (n_runs == 1).all():
        return Groups(ordered, starts, lengths, None)
    order = ranges(starts, lengths)
    starts = (np.cumsum(lengths) - lengths)[first]
    return Groups(ordered[first], starts, np.diff(starts, append=len(values)), order)


def stable_order(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the stable argsort of integers (N,)."""
    groups = grouped(values)
    return ranges(groups.starts, groups.lengths) if groups.order is None else groups.order


def order_of_distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the argsort of distinct integers (N,)."""
    if is_ascending(values):
        return np.arange(len(values))
    starts, lengths = _runs(values[1:] != values[:-1] + 1, len(values))
    if len(starts) * _ROWS_PER_RUN > len(values):
        return np.argsort(values, kind="stable")
    order = np.argsort(values[starts])
    return ranges(starts[order], lengths[order])


def ascending(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return distinct integers (N,) in ascending order."""
    return rows if is_ascending(rows) else rows[order_of_distinct(rows)]


def is_ascending(values: NDArray[Any]) -> bool:
    """Return whether each value (N,) is greater than the one before."""
    return bool((values[1:] > values[:-1]).all())


def rows_by_value(values: NDArray[Any]) -> dict[int, NDArray[np.int64]]:
    """Group row numbers by value.

    Args:
        values: Integers (N,).

    Returns:
        Maps each value, in ascending order, to its rows, int64 ascending.
    """
    groups = grouped(values)
    rows = (np.asarray(rows, np.int64) for rows in groups.each())
    return dict(zip(groups.values.tolist(), rows, strict=True))


def _runs(is_new: NDArray[np.bool_], n_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and lengths of runs, given whether each row but the first starts one."""
    starts = np.append(0, np.flatnonzero(is_new) + 1) if n_rows else np.empty(0, np.int64)
    return starts, np.diff(starts, append=n_rows)
