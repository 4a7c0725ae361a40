"""The sizes of a schedule's tasks, as a short text for tables and in words."""

from collections.abc import Sequence
from itertools import groupby

from iirc_data.benchmarks import Tasks


def task_sizes(tasks: Tasks) -> str:
    """Return the numbers of classes that tasks introduce in short form, e.g. ``"10+21x5"``."""
    runs = _runs(list(map(len, tasks)))
    return "+".join(str(size) if n == 1 else f"{n}x{size}" for size, n in runs)


def tasks_in_words(tasks: Tasks) -> str:
    """Return the number of tasks and of the classes that they introduce.

    Up to four sizes are listed: ``"tasks of 1, 3, 3 and 1 classes"``. More are shortened: ``"a
    first task of 50 classes, then 10 tasks of 5"``.
    """
    sizes = list(map(len, tasks))
    if len(sizes) == 1:
        return f"1 task of {_classes(sizes[0])}"
    if len(set(sizes)) == 1:
        return f"{len(sizes):,} tasks of {_classes(sizes[0])}"
    if len(sizes) <= _MOST_LISTED:
        *others, last = (f"{size:,}" for size in sizes)
        return f"tasks of {', '.join(others)} and {last} classes"
    runs = _runs(sizes)
    if len(runs) > _MOST_LISTED:
        return f"{len(sizes):,} tasks of {min(sizes):,} to {max(sizes):,} classes"
    return ", then ".join(_part(runs, number) for number in range(len(runs)))


_MOST_LISTED = 4


def _runs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return each size with the number of tasks in a row that have it."""
    return [(size, len(list(run))) for size, run in groupby(sizes)]


def _part(runs: Sequence[tuple[int, int]], number: int) -> str:
    """Return one of several runs of tasks in words; only the first one names the unit."""
    size, n = runs[number]
    of = f"of {size:,}" if number else f"of {_classes(size)}"
    if n > 1:
        return f"{n:,} tasks {of}"
    which = {0: "a first", len(runs) - 1: "a last"}.get(number, "a")
    return f"{which} task {of}"


def _classes(n: int) -> str:
    return "1 class" if n == 1 else f"{n:,} classes"
