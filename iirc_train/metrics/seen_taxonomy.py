"""The taxonomy of the classes seen so far, with what metrics derive from it."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SeenTaxonomy:
    """A taxonomy of any depth, also with several superclasses per class, as tensors.

    Levels, heights and distances refer to all classes of the schedule, so they do not change from
    task to task. All else refers to the classes seen so far.

    Attributes:
        n_classes: Number of classes seen so far. They precede the others.
        n_levels: Number of levels.
        levels: Level of each class, int64 (all classes,): 0 without a superclass, otherwise one
            more than the deepest of its superclasses.
        heights: Height of each class, int64 (all classes,): steps down to the deepest leaf below
            it, 0 for a leaf.
        paths: Each class and its ancestors, int64 (all classes, most), padded with -1.
        path_heights: The heights of ``paths``, int64; that of the root for padding.
        below: The classes seen that have an ancestor seen, once for each of these, int64 (pairs,).
        above: These ancestors, int64 (pairs,).
    """

    n_classes: int
    n_levels: int
    levels: torch.Tensor
    heights: torch.Tensor
    paths: torch.Tensor
    path_heights: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor

    @classmethod
    def of(cls, ancestors: torch.Tensor | NDArray[np.bool_]) -> Self:
        """Return the taxonomy of a relation, with all classes seen.

        Args:
            ancestors: Whether the class of a column is that of the row or one of its ancestors,
                bool (classes, classes).

        Raises:
            ValueError: A class is an ancestor of its own ancestor.
        """
        relation = torch.as_tensor(ancestors).cpu().numpy() & ~np.eye(len(ancestors), dtype=bool)
        below, above = np.nonzero(relation)
        levels = _longest(len(relation), above, below)
        heights = _longest(len(relation), below, above)
        n_above = np.bincount(below, minlength=len(relation))
        paths = np.full((len(relation), 1 + n_above.max(initial=0)), -1)
        paths[:, 0] = np.arange(len(relation))
        first = np.cumsum(n_above) - n_above
        paths[below, 1 + np.arange(len(below)) - first[below]] = above
        root = heights.max(initial=-1) + 1
        return cls(
            len(relation),
            int(levels.max(initial=0)) + 1,
            torch.from_numpy(levels),
            torch.from_numpy(heights),
            torch.from_numpy(paths),
            torch.from_numpy(np.where(paths < 0, root, heights[paths])),
            torch.from_numpy(below),
            torch.from_numpy(above),
        )

    def seen(self, n_classes: int) -> "SeenTaxonomy":
        """Return the taxonomy with only the first classes seen."""
        kept = (self.below < n_classes) & (self.above < n_classes)
        return replace(self, n_classes=n_classes, below=self.below[kept], above=self.above[kept])

    def to(self, device: torch.device) -> "SeenTaxonomy":
        """Return the taxonomy on a device."""
        tensors = (field.name for field in fields(self) if field.type is torch.Tensor)
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    @cached_property
    def ancestors(self) -> torch.Tensor:
        """Whether the class of a column is that of the row or one of its ancestors, bool (n, n)."""
        relation = torch.eye(self.n_classes, dtype=torch.bool, device=self.below.device)
        relation[self.below, self.above] = True
        return relation

    @cached_property
    def n_above(self) -> torch.Tensor:
        """The number of ancestors seen of each class seen, int64 (n_classes,)."""
        return self.below.bincount(minlength=self.n_classes)

    @cached_property
    def n_below(self) -> torch.Tensor:
        """The number of descendants seen of each class seen, int64 (n_classes,)."""
        return self.above.bincount(minlength=self.n_classes)

    @cached_property
    def leaves(self) -> torch.Tensor:
        """The classes seen that no class of the schedule is below, int64 (leaves,)."""
        return (self.heights[: self.n_classes] == 0).nonzero().flatten()

    @cached_property
    def classes_at_level(self) -> list[torch.Tensor]:
        """The classes seen at each level, int64 (classes,)."""
        levels = self.levels[: self.n_classes]
        return [(levels == level).nonzero().flatten() for level in range(self.n_levels)]

    def count_above(self, labels: torch.Tensor) -> torch.Tensor:
        """Count each class's ancestors among a sample's labels, float32 (N, n_classes).

        Args:
            labels: bool (N, n_classes).
        """
        return (self._upward @ labels.T.float()).T

    def count_below(self, labels: torch.Tensor) -> torch.Tensor:
        """Count each class's descendants among a sample's labels; see :meth:`count_above`."""
        return (self._downward @ labels.T.float()).T

    def distance(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the height of the lowest common ancestor of two classes, 0 for equal ones.

        Classes without a common ancestor have the root in common, which is one higher than the
        highest class. Of several common ancestors the lowest counts.

        Args:
            one: Classes, int64 (...).
            other: Classes, int64 of a shape that broadcasts with ``one``.
        """
        path = self.paths[one]
        common = (path[..., :, None] == self.paths[other][..., None, :]).any(dim=-1)
        root = self.heights.max() + 1
        return torch.where(common & (path >= 0), self.path_heights[one], root).amin(dim=-1)

    @cached_property
    def _upward(self) -> torch.Tensor:
        return self._sparse(self.below, self.above)

    @cached_property
    def _downward(self) -> torch.Tensor:
        return self._sparse(self.above, self.below)

    def _sparse(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        # float32 is exact for whole numbers up to 2^24
        size = (self.n_classes, self.n_classes)
        ones = torch.ones(len(rows), device=rows.device)
        return torch.sparse_coo_tensor(
            torch.stack((rows, columns)), ones, size, check_invariants=True
        ).coalesce()


def _longest(
    n_classes: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the length of the longest chain of pairs that ends at each class."""
    length = np.zeros(n_classes, dtype=np.int64)
    for _ in range(n_classes + 1):
        longer = length.copy()
        np.maximum.at(longer, second, length[first] + 1)
        if (longer == length).all():
            return length
        length = longer
    raise ValueError("a class is an ancestor of its own ancestor")
