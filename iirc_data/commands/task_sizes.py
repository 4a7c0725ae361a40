"""The sizes of a schedule's tasks as a short text."""

from itertools import groupby

from iirc_data.benchmarks import Tasks


def task_sizes(tasks: Tasks) -> str:
    """Return the numbers of classes that tasks introduce in short form, e.g. ``"10+21x5"``."""
    runs = [(size, len(list(run))) for size, run in groupby(map(len, tasks))]
    return "+".join(str(size) if n == 1 else f"{n}x{size}" for size, n in runs)
