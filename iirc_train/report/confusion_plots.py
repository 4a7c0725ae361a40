"""Plots confusion counts and recalls, grouped by superclass."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iirc_data.benchmarks import Benchmark
from iirc_train.report.confusion import by_superclass, mean_recalls
from iirc_train.report.plots import COLOURS, plain
from iirc_train.run.confusion import Confusion

MOST_NAMED_CLASSES = 40
"""With more classes, the axes name superclasses only."""


def confusion_figure(confusion: Confusion, benchmark: Benchmark) -> Figure:
    """Plot, for each true label (row), the fraction of images with each predicted label (column).

    Args:
        confusion: The counts.
        benchmark: Provides the superclasses and readable names.
    """
    grouped = by_superclass(confusion, benchmark)
    names = grouped.class_names
    n = len(names)
    all_named = n <= MOST_NAMED_CLASSES
    side = 3.0 + 0.12 * n if all_named else 6.5
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(grouped.rates, vmin=0, vmax=1, cmap="viridis", rasterized=not all_named)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    group_of = [(benchmark.taxonomy.superclasses_of(name) or (name,))[0] for name in names]
    starts = [place for place in range(n) if place == 0 or group_of[place] != group_of[place - 1]]
    lone = [place for place in starts if names[place] in benchmark.other_classes]
    for place in starts[1:]:
        if place not in lone[1:]:  # no lines between classes without a superclass
            axes.axhline(place, color="#ffffff", linewidth=0.8 if all_named else 0.3)
            axes.axvline(place, color="#ffffff", linewidth=0.8 if all_named else 0.3)
    named = range(n) if all_named else [place for place in starts if place not in lone[1:]]
    labels = [_label(names[place], benchmark) for place in named]
    if lone and not all_named:
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


def _label(name: str, benchmark: Benchmark) -> str:
    """Return a class's readable name, shortened if long; superclasses in capitals."""
    readable = benchmark.readable_name(name)
    short = readable if len(readable) <= 22 else f"{readable[:21]}…"
    return plain(short.upper() if name in benchmark.superclasses else short)


def recalls_figure(confusions: Sequence[Mapping[int, Confusion]], benchmark: Benchmark) -> Figure:
    """Plot the mean recall of superclasses and of other classes after each task.

    Args:
        confusions: For each run, the counts after each task.
        benchmark: Provides the superclasses.
    """
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    tasks = sorted({task for run in confusions for task in run})
    recalls = np.array(
        [
            np.mean([mean_recalls(run[t], benchmark) for run in confusions if t in run], axis=0)
            for t in tasks
        ]
    )
    labels = ("superclasses", "other classes")
    for place, (label, marker) in enumerate(zip(labels, "os", strict=True)):
        axes.plot(tasks, recalls[:, place], label=label, color=COLOURS[place], marker=marker)
    axes.set(xlabel="after task", ylabel="mean recall of seen classes", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
