"""Plots confusion counts and recalls, grouped by superclass."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark
from iirc_data.taxonomy import Taxonomy
from iirc_train.report.confusion import mean_recalls
from iirc_train.report.plots import Look, plain
from iirc_train.report.summary import mean_of_known
from iirc_train.run.confusion import Confusion

MOST_NAMED_CLASSES = 40
"""With more classes, the axes name the classes without superclass only."""

MOST_CELLS = 1000
"""With more classes, a cell is the mean over neighbouring classes."""


def confusion_figure(confusion: Confusion, benchmark: Benchmark) -> Figure:
    """Plot, for each true label (row), the fraction of images with each predicted label (column).

    Args:
        confusion: The counts, in the order of
            :func:`~iirc_train.report.confusion.by_superclass`.
        benchmark: Provides the superclasses and readable names.
    """
    taxonomy = benchmark.taxonomy
    names = confusion.class_names
    n = len(names)
    all_named = n <= MOST_NAMED_CLASSES
    side = 3.0 + 0.12 * n if all_named else 6.5
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.add_subplot()
    edges, rates = _cells(confusion)
    mesh = axes.pcolormesh(
        edges, edges, rates, vmin=0, vmax=1, cmap="viridis", rasterized=not all_named
    )
    axes.invert_yaxis()
    axes.set_aspect("equal")
    starts = _starts(names, taxonomy)
    for place in starts[1:]:
        axes.axhline(place, color="#ffffff", linewidth=0.8 if all_named else 0.3)
        axes.axvline(place, color="#ffffff", linewidth=0.8 if all_named else 0.3)
    named = range(n) if all_named else starts
    labels = [_label(names[place], benchmark) for place in named]
    if not all_named and names[starts[-1]] in taxonomy.other_classes:
        labels[-1] = "without superclass"
    ticks = np.array(named) + 0.5
    size = min(7.0, 220 / len(labels))
    axes.set_xticks(ticks, labels, rotation=90, fontsize=size)
    axes.set_yticks(ticks, labels, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted label", ylabel="true label")
    bar = figure.colorbar(mesh, ax=axes, shrink=0.7, label="fraction of the true label's images")
    bar.outline.set_visible(False)
    return figure


def _cells(confusion: Confusion) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the edges of the cells, as numbers of classes, and the mean rate in each cell."""
    n = len(confusion.class_names)
    if n <= MOST_CELLS:
        return np.arange(n + 1), confusion.rates
    edges = np.linspace(0, n, MOST_CELLS + 1).astype(np.int64)
    cells = np.full((MOST_CELLS, MOST_CELLS), np.nan)
    for row, (start, end) in enumerate(pairwise(edges)):
        known = start + np.flatnonzero(confusion.n_samples[start:end])
        if len(known):
            rates = (confusion.counts[known] / confusion.n_samples[known, None]).mean(axis=0)
            cells[row] = np.add.reduceat(rates, edges[:-1]) / np.diff(edges)
    return edges, cells


def _starts(names: Sequence[str], taxonomy: Taxonomy) -> list[int]:
    """Return where the classes below a class without superclass start, and those without either."""
    without_either = set(taxonomy.other_classes)
    starts = [
        place
        for place, name in enumerate(names)
        if not taxonomy.superclasses_of(name) and name not in without_either
    ]
    lone = [place for place, name in enumerate(names) if name in without_either]
    return sorted({0, *starts, *lone[:1]})


def _label(name: str, benchmark: Benchmark) -> str:
    """Return a class's readable name, shortened if long; superclasses in capitals."""
    readable = benchmark.readable_name(name)
    short = readable if len(readable) <= 22 else f"{readable[:21]}…"
    return plain(short.upper() if name in benchmark.superclasses else short)


def recalls_figure(
    history: Sequence[Mapping[int, Mapping[str, float]]], taxonomy: Taxonomy
) -> Figure:
    """Plot the mean recall of the classes of each level after each task.

    Args:
        history: For each run, the recall of each class after each task.
        taxonomy: Provides the levels.
    """
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    tasks = sorted({task for run in history for task in run})
    recalls = np.array(
        [
            mean_of_known([mean_recalls(run[t], taxonomy) for run in history if t in run])
            for t in tasks
        ]
    )
    for level in range(taxonomy.n_levels):
        look = Look.of(level)
        label = f"level {level}" if taxonomy.n_levels > 1 else "all classes"
        dashes = (0.0, look.line or None)
        axes.plot(
            tasks,
            recalls[:, level],
            label=label,
            color=look.colour,
            marker=look.marker,
            linestyle=dashes,
        )
    axes.set(xlabel="after task", ylabel="mean recall of seen classes", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower center", ncols=min(4, taxonomy.n_levels), frameon=False, fontsize=9
    )
    return figure
