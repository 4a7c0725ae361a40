"""What is known of each class after each task, as a tree of superclasses and their subclasses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark
from iirc_data.taxonomy import Taxonomy
from iirc_train.report.summary import mean_of_known

MOST_OPEN_ROWS = 40
"""Trees with more rows are shown closed."""

History = Mapping[int, Mapping[str, float]]
"""The recall of each class after each task of a run."""

UNSEEN = ""
"""Cell of a task before which a class was not introduced."""


@dataclass(frozen=True)
class ClassNode:
    """A class in the tree, as text; fractions in percent.

    Attributes:
        name: Readable name.
        now: Recall after the last task; empty if the class was not introduced.
        forgotten: Best recall after any task, minus ``now``; empty likewise.
        cells: For each task, the recall after it in tenths, ``"0"`` to ``"10"``, or
            :data:`UNSEEN`.
        spoken: The recalls after the tasks, in words.
        below: Number of leaf classes below, and the mean of their recalls; empty for a leaf.
        see: The superclass under which the subclasses are shown, if it is another one; empty if
            not.
        children: Its subclasses.
    """

    name: str
    now: str
    forgotten: str
    cells: Sequence[str]
    spoken: str
    below: str = ""
    see: str = ""
    children: "Sequence[ClassNode]" = field(default=(), repr=False)


@dataclass(frozen=True)
class ClassTree:
    """The taxonomy with what is known of its classes.

    Attributes:
        nodes: The classes without superclass.
        n_rows: Number of rows.
        n_tasks: Number of tasks.
        has_levels: Whether any class has a subclass.
    """

    nodes: Sequence[ClassNode]
    n_rows: int
    n_tasks: int
    has_levels: bool

    @property
    def is_open(self) -> bool:
        """Whether to show all rows from the start."""
        return self.n_rows <= MOST_OPEN_ROWS


def top_down(taxonomy: Taxonomy) -> Iterator[str]:
    """Yield each class once: a class without superclass, then all below it, and so on."""
    done: set[str] = set()
    waiting = [*reversed(_tops(taxonomy))]
    while waiting:
        name = waiting.pop()
        if name not in done:
            done.add(name)
            yield name
            waiting += reversed(taxonomy.superclasses.get(name, ()))


def class_tree(history: Sequence[History], benchmark: Benchmark) -> ClassTree:
    """Return the tree of the classes that any run has seen.

    Args:
        history: For each run, the recall of each class after each task.
        benchmark: Provides the taxonomy and readable names.
    """
    n_tasks = 1 + max(task for run in history for task in run)
    recalls = _Recalls(history, n_tasks)
    builder = _Builder(benchmark, recalls)
    roots = dict.fromkeys([*_tops(benchmark.taxonomy), *recalls.unknown_to(benchmark.taxonomy)])
    nodes = [node for name in roots if (node := builder.node(name))]
    has_levels = any(node.children for node in nodes)
    return ClassTree(nodes, builder.n_rows, n_tasks, has_levels)


def _tops(taxonomy: Taxonomy) -> list[str]:
    """Return the classes without superclass, those with subclasses first."""
    upper = [name for name in taxonomy.superclasses if not taxonomy.superclasses_of(name)]
    return [*upper, *taxonomy.other_classes]


class _Recalls:
    """The recall of each class after each task, and what follows; means over runs."""

    def __init__(self, history: Sequence[History], n_tasks: int) -> None:
        names = list(dict.fromkeys(n for run in history for after in run.values() for n in after))
        self._place = {name: place for place, name in enumerate(names)}
        found = np.full((len(history), n_tasks, len(names)), np.nan)
        for number, run in enumerate(history):
            for task, after in run.items():
                found[number, task, [self._place[name] for name in after]] = list(after.values())
        last = [max(run) for run in history]
        now = found[range(len(history)), last]
        best = np.where(np.isnan(found), -np.inf, found).max(axis=1)
        self._after = mean_of_known(found)
        self._now = mean_of_known(now)
        self._forgotten = mean_of_known(np.where(np.isnan(now), np.nan, best - now))

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def unknown_to(self, taxonomy: Taxonomy) -> list[str]:
        """Return the classes that are not in a taxonomy, such as one that has changed."""
        return [name for name in self._place if name not in taxonomy.levels]

    def now(self, name: str) -> float:
        """Return the recall of a class after the last task."""
        return float(self._now[self._place[name]])

    def as_text(self, name: str) -> dict[str, Any]:
        """Return the attributes of :class:`ClassNode` that are recalls of a class."""
        if name not in self._place:
            cells = [UNSEEN] * len(self._after)
            return {"now": "", "forgotten": "", "cells": cells, "spoken": "not introduced"}
        place = self._place[name]
        return {
            "now": percent(self._now[place]),
            "forgotten": percent(self._forgotten[place]),
            "cells": [_cell(share) for share in self._after[:, place]],
            "spoken": _spoken(self._after[:, place]),
        }


def _cell(share: float) -> str:
    return UNSEEN if np.isnan(share) else f"{10 * share:.0f}"


def _spoken(recalls: NDArray[np.float64]) -> str:
    """Return the recalls after the tasks in words, from the first that is known."""
    known = np.flatnonzero(~np.isnan(recalls))
    if not len(known):
        return "no images"
    first, last = known[0], len(recalls) - 1
    tasks = f"task {first}" if first == last else f"tasks {first} to {last}"
    numbers = ("unknown" if np.isnan(share) else f"{100 * share:.0f}" for share in recalls[first:])
    return f"recall in percent after {tasks}: {', '.join(numbers)}"


class _Builder:
    """Builds the nodes of a tree from the bottom up."""

    def __init__(self, benchmark: Benchmark, recalls: _Recalls) -> None:
        self._benchmark = benchmark
        self._taxonomy = benchmark.taxonomy
        self._recalls = recalls
        self._shown_under: dict[str, str] = {}
        self._leaves_below: dict[str, list[float]] = {}
        for leaf in filter(recalls.__contains__, self._taxonomy.leaf_classes):
            for name in self._taxonomy.ancestors_of(leaf):
                self._leaves_below.setdefault(name, []).append(recalls.now(leaf))
        self.n_rows = 0

    def node(self, name: str, under: str = "") -> ClassNode | None:
        """Return a class with those below it; None if none of them was seen.

        Args:
            name: The class.
            under: The superclass above the node; the first one shows the subclasses.
        """
        subclasses = self._taxonomy.superclasses.get(name, ())
        elsewhere = self._shown_under.setdefault(name, under) != under
        shown = () if elsewhere else subclasses
        children = [node for below in shown if (node := self.node(below, name))]
        below = self._leaves_below.get(name, [])
        if name not in self._recalls and not children and not below:
            return None
        self.n_rows += 1
        return ClassNode(
            name=self._benchmark.readable_name(name),
            **self._recalls.as_text(name),
            below=_summary(below) if below else "",
            see=self._benchmark.readable_name(self._shown_under[name])
            if elsewhere and subclasses
            else "",
            children=children,
        )


def _summary(recalls: Sequence[float]) -> str:
    number = f"{len(recalls):,} {'class' if len(recalls) == 1 else 'classes'} below"
    mean = float(mean_of_known(recalls))
    return number if np.isnan(mean) else f"{number}, mean {percent(mean)}"


def percent(share: float) -> str:
    """Return a fraction in percent; empty for NaN."""
    return "" if np.isnan(share) else f"{100 * share:.1f}"
