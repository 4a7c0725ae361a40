"""A taxonomy of any depth: superclasses, their subclasses, and what follows from them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter


class Taxonomy:
    """Classes and their superclasses, of any depth.

    A class may have several superclasses.

    Args:
        superclasses: Maps each superclass to its direct subclasses, which may be superclasses
            themselves.
        other_classes: Classes without superclass and without subclass.

    Raises:
        ValueError: A class is its own ancestor.
    """

    def __init__(
        self, superclasses: Mapping[str, Sequence[str]], other_classes: Iterable[str] = ()
    ) -> None:
        self.superclasses = superclasses
        self._of: dict[str, list[str]] = {}
        for superclass, subclasses in superclasses.items():
            for name in subclasses:
                self._of.setdefault(name, []).append(superclass)
        self.other_classes = list(other_classes)
        try:
            self._top_first = list(TopologicalSorter(self._of).static_order())
        except CycleError as error:
            chain = " -> ".join(map(repr, error.args[1]))
            raise ValueError(f"superclasses: a class is its own ancestor: {chain}") from None

    @cached_property
    def leaf_classes(self) -> list[str]:
        """Classes without subclasses, in the order in which they are listed."""
        listed = (name for names in self.superclasses.values() for name in names)
        leaves = dict.fromkeys(name for name in listed if name not in self.superclasses)
        return [*leaves, *self.other_classes]

    def superclasses_of(self, name: str) -> tuple[str, ...]:
        """Return the direct superclasses of a class, in the order in which they are listed."""
        return tuple(self._of.get(name, ()))

    @cached_property
    def levels(self) -> dict[str, int]:
        """Maps each class to its level.

        0 for a class without superclass, else one more than the highest level of its superclasses.
        """
        levels = dict.fromkeys([*self.superclasses, *self.other_classes], 0)
        for name in self._top_first:
            levels[name] = max((levels[above] + 1 for above in self._of.get(name, ())), default=0)
        return levels

    @property
    def is_tree(self) -> bool:
        """Whether no class has several superclasses."""
        return all(len(above) == 1 for above in self._of.values())

    @property
    def n_levels(self) -> int:
        """Number of levels: 1 without superclasses, 2 in the published benchmarks."""
        return max(self.levels.values(), default=0) + 1

    def ancestors_of(self, name: str) -> tuple[str, ...]:
        """Return all superclasses of a class, direct or not, the upper levels first."""
        return self._ancestors[name] if name in self._of else ()

    @cached_property
    def _ancestors(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name in self._top_first:
            above = self._of.get(name, [])
            lists = (found[superclass] + (superclass,) for superclass in above)
            unique = dict.fromkeys(ancestor for ancestors in lists for ancestor in ancestors)
            found[name] = tuple(sorted(unique, key=self.levels.__getitem__))
        return found

    def labels_of(self, leaf_class: str) -> tuple[str, ...]:
        """Return the superclasses of a leaf class, the upper levels first, and itself."""
        return self._labels.get(leaf_class, (leaf_class,))

    @cached_property
    def _labels(self) -> dict[str, tuple[str, ...]]:
        return {leaf: (*self.ancestors_of(leaf), leaf) for leaf in self.leaf_classes}

    def ranks_of(self, leaf_class: str) -> tuple[int, ...]:
        """Return the rank of each of a leaf class's labels among their levels: 0, 1, …."""
        levels = [self.levels.get(name, 0) for name in self.labels_of(leaf_class)]
        rank = {level: number for number, level in enumerate(sorted(set(levels)))}
        return tuple(rank[level] for level in levels)
