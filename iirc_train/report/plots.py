"""Plots scores with matplotlib; :mod:`iirc_train.report.figure_files` writes the figures."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from iirc_train.metrics import metric_label
from iirc_train.report.paper import PaperCurve, paper_curves, paper_name
from iirc_train.report.runs import Group
from iirc_train.report.summary import Spread, curve_of, mean_by_task
from iirc_train.run.results import PWJS

# the palette of Okabe and Ito, safe for colour-blind readers; then three colours of Tol
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#44AA99"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
GREY = "#808080"

MOST_NUMBERED_TASKS = 12
"""With more tasks, the cells of a heat map are too small for numbers."""

_GROUPS_PER_LINE = 5
_LABEL_DISTANCE = 0.035
_SHORT_NAME = 34  # characters; two such names fit on one line


class Look(NamedTuple):
    """Style of a group's curve; no two groups have the same marker and line.

    Attributes:
        colour: Repeats after ten groups. Marker and line suffice in a grey print.
        marker: Repeats after ten groups.
        line: Dash pattern, the lengths of dashes and gaps in line widths; empty for a solid line.
            Changes after every five groups, so that earlier curves show through the gaps of later
            ones.
    """

    colour: str
    marker: str
    line: tuple[float, ...]

    @classmethod
    def of(cls, place: int) -> Self:
        """Return the style of the group at a position among the groups."""
        number = place % len(MARKERS)
        return cls(COLOURS[number], MARKERS[number], _dashes(place // _GROUPS_PER_LINE))


def _dashes(turn: int) -> tuple[float, ...]:
    """Return the dash pattern of a turn: solid, dashed, then dashes with more and more dots."""
    return (4.0, 1.5, *(1.0, 1.5) * (turn - 1)) if turn else ()


def plain(text: str) -> str:
    """Escape text so that matplotlib shows it literally, not as a formula."""
    return text.replace("$", r"\$")


def curves_figure(
    groups: Sequence[Group], metric: str = PWJS, benchmark: str | None = None
) -> Figure:
    """Plot the score over all seen classes after each task: for each group, mean ± SD.

    Joint training has a single task; it is drawn as a horizontal line.

    Args:
        groups: The groups of one benchmark.
        metric: Name of a metric that at least one run computed.
        benchmark: Name of the benchmark whose curves in the paper are added; None to add none.
    """
    curves = {
        place: curve_of(results)
        for place, group in enumerate(groups)
        if (results := group.results(metric))
    }
    n_tasks = max(map(len, curves.values()))
    columns = 2 if max(len(group.name) for group in groups) <= _SHORT_NAME else 1
    legend_rows = -(-len(groups) // columns)
    figure = Figure(figsize=(5.6, 3.7 + 0.22 * legend_rows), layout="constrained")
    axes = figure.add_subplot()
    for place, curve in curves.items():
        _plot_curve(axes, groups[place], place, curve, n_tasks)
    if benchmark is not None:
        _plot_paper(axes, groups, paper_curves(benchmark, metric), n_tasks)
    axes.set(
        xlabel="after task",
        ylabel=f"{metric_label(metric)} over all classes seen so far",
        ylim=(0, 1),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower center", ncols=columns, frameon=False, fontsize=9, handlelength=3
    )
    return figure


def _plot_curve(
    axes: Axes, group: Group, place: int, curve: Sequence[Spread], n_tasks: int
) -> None:
    look = Look.of(place)
    if group.runs[0].config.joint:  # a line with one marker
        tasks, mean = np.array([0, n_tasks - 1]), np.repeat(curve[0].mean, 2)
        marked = [1]
    else:
        tasks = np.arange(len(curve))
        mean = np.array([score.mean for score in curve])
        marked = list(range(len(curve)))
    axes.plot(
        tasks,
        mean,
        label=plain(group.name),
        color=look.colour,
        linestyle=(0.0, look.line or None),
        marker=look.marker,
        markersize=8 if look.marker == "*" else 6,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markevery=marked,
    )
    sd = np.nan_to_num([score.sd for score in curve])
    if sd.any() and len(sd) == len(tasks):
        axes.fill_between(tasks, mean - sd, mean + sd, color=look.colour, alpha=0.18, linewidth=0)


def _plot_paper(
    axes: Axes, groups: Sequence[Group], curves: Sequence[PaperCurve], n_tasks: int
) -> None:
    """Plot the paper's curves, each in the colour of the first group that runs its method."""
    colours: dict[str | None, str] = {}
    for place, group in enumerate(groups):
        name = paper_name(group.runs[0].config)
        colours.setdefault(name, Look.of(place).colour)
    n_tasks = max([n_tasks, *(len(curve.scores) for curve in curves)])
    ends = []
    for curve in curves:
        scores = curve.scores if len(curve.scores) > 1 else np.repeat(curve.scores, n_tasks)
        known = np.flatnonzero(~np.isnan(scores))
        colour = colours.get(curve.name, GREY)
        axes.plot(known, scores[known], color=colour, linestyle="--", linewidth=0.9, alpha=0.6)
        ends.append((float(scores[known[-1]]), curve.name, colour))
    height = -1.0
    for end, name, colour in sorted(ends):
        height = max(end, height + _LABEL_DISTANCE)
        axes.annotate(
            name,
            (n_tasks - 0.8, height),
            color=colour,
            fontsize=7,
            va="center",
            annotation_clip=False,
        )


def tasks_figure(group: Group, metric: str = PWJS) -> Figure:
    """Plot the mean score on each task (column) after each task (row)."""
    scores = mean_by_task(group.results(metric))
    n_tasks = len(scores)
    figure = Figure(figsize=(3.9, 3.4), layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(scores, vmin=0, vmax=1, cmap="viridis", edgecolors="face", linewidth=0.2)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set(xlabel=f"{metric_label(metric)} on task", ylabel="after task")
    ticks = np.arange(0, n_tasks, 1 if n_tasks <= MOST_NUMBERED_TASKS else 5)
    axes.set_xticks(ticks + 0.5, labels=map(str, ticks))
    axes.set_yticks(ticks + 0.5, labels=map(str, ticks))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if n_tasks <= MOST_NUMBERED_TASKS:
        _number_cells(axes, scores)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)
    return figure


def _number_cells(axes: Axes, scores: NDArray[np.float64]) -> None:
    size = min(9.0, 60 / len(scores))
    for (row, column), score in np.ndenumerate(scores):
        if not np.isnan(score):
            # not pure black, which the page replaces by its own text colour
            colour = "#111111" if score > 0.6 else "#ffffff"
            text = f"{score:.2f}"
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=size
            )
