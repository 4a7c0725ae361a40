"""Integers as runs of consecutive numbers: parts are chosen and sorted without expanding them."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Runs:
    """Integers (N,), in an order, as runs of consecutive numbers of the same group.

    Attributes:
        starts: int64 (R,), first number of each run.
        lengths: int64 (R,), how many numbers each run has; may be 0.
        groups: Integers (R,), not negative, the group of each run.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    groups: NDArray[Any]

    @classmethod
    def of(cls, numbers: NDArray[np.int64], groups: NDArray[Any]) -> Self:
        """Find the runs in numbers (N,), given the group of each, (N,)."""
        is_new = numbers[1:] != numbers[:-1] + 1
        is_new |= groups[1:] != groups[:-1]
        first, lengths = _runs(is_new, len(numbers))
        return cls(numbers[first], lengths, groups[first])

    @classmethod
    def of_rows(cls, groups: NDArray[Any]) -> Self:
        """Return all row numbers 0 to N - 1 of an array (N,) of the groups of the rows."""
        first, lengths = _runs(groups[1:] != groups[:-1], len(groups))
        return cls(first, lengths, groups[first])

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers, int64 (N,)."""
        return ranges(self.starts, self.lengths)

    def take(self, which: NDArray[Any]) -> Self:
        """Return some of the runs, given a mask, or indices in the order of the result."""
        return replace(
            self,
            starts=self.starts[which],
            lengths=self.lengths[which],
            groups=self.groups[which],
        )

    def shifted(self, step: int) -> Self:
        """Return the numbers plus a step."""
        return replace(self, starts=self.starts + step)

    def in_groups(self, groups: NDArray[Any]) -> Self:
        """Return the same numbers in other groups, given that of each run."""
        return replace(self, groups=groups)

    def sizes_of(self, n_groups: int) -> NDArray[np.int64]:
        """Return how many numbers each of the groups 0 to ``n_groups`` - 1 has, int64."""
        # exact up to 2^53
        return np.bincount(self.groups, self.lengths, minlength=n_groups).astype(np.int64)

    def group_sizes(self) -> NDArray[np.int64]:
        """Return how many numbers the group of each run has, int64 (R,)."""
        return np.take(self.sizes_of(0), self.groups)

    def between(self, first: ArrayLike, end: ArrayLike) -> Self:
        """Return a part of each group, in the same order.

        Args:
            first: Integers (R,), or one for all: position within the group of each run, at which
                the part starts.
            end: Likewise, at which it ends.
        """
        by_group = np.argsort(self.groups, kind="stable")
        lengths = self.lengths[by_group]
        before = np.cumsum(lengths) - lengths
        of_group, n_runs = _runs(np.diff(self.groups[by_group]) != 0, len(by_group))
        offsets = np.empty_like(before)  # numbers of the same group in earlier runs
        offsets[by_group] = before - np.repeat(before[of_group], n_runs)
        low = np.clip(first - offsets, 0, self.lengths)
        high = np.clip(end - offsets, low, self.lengths)
        part = replace(self, starts=self.starts + low, lengths=high - low)
        return part.take(part.lengths > 0)

    def ascending(self) -> Self:
        """Return the numbers in ascending order; one that occurs several times is returned once."""
        ordered = self.take(np.argsort(self.starts, kind="stable"))
        ends = ordered.starts + ordered.lengths
        covered = np.maximum.accumulate(ends)
        starts = np.maximum(ordered.starts[1:], covered[:-1])
        starts = np.concatenate([ordered.starts[:1], starts])
        part = replace(ordered, starts=starts, lengths=np.maximum(ends - starts, 0))
        return part.take(part.lengths > 0)


def joined(parts: list[Runs]) -> Runs:
    """Return the numbers of several in one, part after part; at least one is needed."""
    return Runs(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.groups for part in parts]),
    )


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


def rows_by_value(values: NDArray[Any]) -> dict[int, NDArray[np.int64]]:
    """Group row numbers by value.

    Args:
        values: Integers (N,).

    Returns:
        Maps each value, in ascending order, to its rows, int64 ascending.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts, lengths = _runs(ordered[1:] != ordered[:-1], len(values))
    ends = (starts + lengths).tolist()
    rows = (order[start:end] for start, end in zip(starts.tolist(), ends, strict=True))
    return dict(zip(ordered[starts].tolist(), rows, strict=True))


def _runs(is_new: NDArray[np.bool_], n_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and lengths of runs, given whether each row but the first starts one."""
    starts = np.append(0, np.flatnonzero(is_new) + 1) if n_rows else np.empty(0, np.int64)
    return starts, np.diff(starts, append=n_rows)
