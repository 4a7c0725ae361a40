"""Schedules of a taxonomy: the order in which tasks introduce its classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, repeat, zip_longest
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import BenchmarkError
from iirc_data.taxonomy import Taxonomy

Order: TypeAlias = Literal["superclasses-first", "level-by-level", "mixed"]
ORDERS: tuple[Order, ...] = get_args(Order)

_SCHEDULE_STREAM = 6


def make_schedule(
    taxonomy: Taxonomy,
    order: Order,
    *,
    task_size: int,
    first_task: int | None = None,
    seed: int | None = None,
) -> list[list[str]]:
    """Divide the classes of a taxonomy into tasks.

    Each class is in one task, and its superclasses are in earlier tasks, as in the published
    benchmarks. With a seed, the result is a pure function of names, superclasses, sizes and seed,
    but not of the order in which a taxonomy lists its classes. All random numbers come from the raw
    stream of NumPy's ``Philox``, which NumPy keeps between versions.

    The orders are:

    - ``"superclasses-first"``, as in the published benchmarks: the first task consists of
      superclasses of the top level, which are drawn with equal probability. The other classes
      follow as in ``"mixed"``.
    - ``"level-by-level"``: all classes of a level come before those of the next level. A level is
      divided evenly into as few tasks as possible.
    - ``"mixed"``: classes are shuffled, each after its superclasses, and fill task after task; a
      class whose superclass is in the same task moves to the next one. If no class has several
      superclasses, all such orders are equally likely before they are divided.

    A task has fewer than ``task_size`` classes only if it is the last one, if its level ends, or if
    every other class still waits for a superclass.

    Args:
        taxonomy: The classes.
        order: See above.
        task_size: Largest number of classes of a task.
        first_task: Largest number of classes of the first task. By default all superclasses of the
            top level (``"superclasses-first"``), the top level (``"level-by-level"``), or
            ``task_size`` (``"mixed"``, and a taxonomy without superclasses).
        seed: Seed of the order, at least 0. None keeps the taxonomy's order, in which leaf classes
            of different superclasses take turns.

    Returns:
        The names of the classes that each task introduces.

    Raises:
        BenchmarkError: A size is below 1, or larger than the number of classes it is for.
    """
    classes = sorted(taxonomy.levels)
    tops = [name for name in classes if taxonomy.levels[name] == 0]
    if not taxonomy.superclasses:
        order = "mixed"
    if order == "superclasses-first":
        tops = [name for name in tops if name in taxonomy.superclasses]
    if order == "mixed":
        most, n_first, which = len(classes), task_size, "classes"
    else:
        kind = "superclasses" if order == "superclasses-first" else "classes"
        most, n_first, which = len(tops), len(tops), f"{kind} of the top level"
    if first_task is not None:
        n_first = _checked("first task", first_task, most, which)
    if order == "mixed" and first_task is None:
        _checked("task size", task_size, most, which)
    else:
        n_others = len(classes) - n_first
        _checked("task size", task_size, n_others or task_size, "classes after the first task")
    draws = _in_turn(taxonomy) if seed is None else _drawn(taxonomy, classes, seed)
    if order == "level-by-level":
        return _level_by_level(taxonomy, draws.by_key(classes), n_first, task_size)
    arrivals = draws.by_arrival(classes)
    if order == "mixed":
        return _tasks(taxonomy, arrivals, chain([n_first], repeat(task_size)))
    chosen = draws.by_key(tops)[:n_first]
    return [chosen, *_tasks(taxonomy, arrivals, repeat(task_size), chosen)]


def _checked(what: str, size: int, most: int, kind: str) -> int:
    if not 1 <= size <= most:
        raise BenchmarkError(f"{what} {size:,}: expected 1 to {most:,}, the number of {kind}")
    return size


@dataclass(frozen=True)
class _Draws:
    """The numbers that order classes; ascending.

    Attributes:
        keys: A number per class, all orders equally likely.
        arrivals: A number per class, larger than those of its superclasses.
    """

    keys: Mapping[str, float]
    arrivals: Mapping[str, float]

    def by_key(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=self.keys.__getitem__)

    def by_arrival(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=self.arrivals.__getitem__)


def _drawn(taxonomy: Taxonomy, classes: Sequence[str], seed: int) -> _Draws:
    """Draw the numbers of each class.

    A class arrives after its latest superclass, with a delay from the exponential distribution of
    mean 1 / (1 + number of classes below it). At each moment, the next class is then each available
    one with a probability proportional to the number of classes of its subtree, by which every
    order of a forest is equally likely.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed, _SCHEDULE_STREAM]))
    keys, uniforms = _uniform(bits.random_raw(2 * len(classes))).reshape(2, -1)
    n_below = dict.fromkeys(classes, 0)
    for name in classes:
        for ancestor in taxonomy.ancestors_of(name):
            n_below[ancestor] += 1
    delays = dict(zip(classes, -np.log1p(-uniforms), strict=True))
    arrivals: dict[str, float] = {}
    for name in sorted(classes, key=taxonomy.levels.__getitem__):
        latest = max((arrivals[above] for above in taxonomy.superclasses_of(name)), default=0.0)
        arrivals[name] = latest + float(delays[name]) / (1 + n_below[name])
    return _Draws(dict(zip(classes, keys.tolist(), strict=True)), arrivals)


def _uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the 53 upper bits of each number as a float in [0, 1)."""
    return np.ldexp((raw >> np.uint64(11)).astype(np.float64), -53)


def _in_turn(taxonomy: Taxonomy) -> _Draws:
    """Order superclasses by level; then leaf classes, one of each superclass at a time."""
    superclasses = sorted(taxonomy.superclasses, key=taxonomy.levels.__getitem__)
    below = (
        [name for name in names if name not in taxonomy.superclasses]
        for names in taxonomy.superclasses.values()
    )
    leaves = chain.from_iterable(zip_longest(*below, taxonomy.other_classes))
    order = dict.fromkeys([*superclasses, *(leaf for leaf in leaves if leaf is not None)])
    places = {name: float(place) for place, name in enumerate(order)}
    return _Draws(places, places)


def _tasks(
    taxonomy: Taxonomy, order: Sequence[str], sizes: Iterator[int], introduced: Iterable[str] = ()
) -> list[list[str]]:
    """Fill tasks with the first classes of an order whose superclasses earlier tasks introduced."""
    known = set(introduced)
    waiting = [name for name in order if name not in known]
    tasks: list[list[str]] = []
    while waiting:
        size = next(sizes)
        task: list[str] = []
        skipped: list[str] = []
        for name in waiting:
            if len(task) == size:
                break
            is_ready = known.issuperset(taxonomy.superclasses_of(name))
            (task if is_ready else skipped).append(name)
        waiting = skipped + waiting[len(task) + len(skipped) :]
        known.update(task)
        tasks.append(task)
    return tasks


def _level_by_level(
    taxonomy: Taxonomy, order: Sequence[str], n_first: int, task_size: int
) -> list[list[str]]:
    levels: list[list[str]] = [[] for _ in range(taxonomy.n_levels)]
    for name in order:
        levels[taxonomy.levels[name]].append(name)
    first, levels[0] = levels[0][:n_first], levels[0][n_first:]
    return [first, *(task for names in levels for task in _even_parts(names, task_size))]


def _even_parts(names: Sequence[str], most: int) -> list[list[str]]:
    n_parts = -(-len(names) // most)
    bounds = [len(names) * part // n_parts for part in range(n_parts + 1)] if n_parts else [0]
    return [list(names[a:b]) for a, b in pairwise(bounds)]
