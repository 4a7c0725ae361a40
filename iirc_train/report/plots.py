"""Figures."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iirc_data.files import write_atomically
from iirc_train.report.results import RunResults

# Okabe and Ito's colours, told apart by colour-blind readers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_comparison(runs: list[RunResults], path: Path) -> None:
    """Plot the pw-JS over all seen classes after each task, one curve per run.

    Args:
        runs: The runs.
        path: File to write; its suffix chooses the format (png, svg, pdf).
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        axes.plot(
            range(len(run.all_seen)),
            run.all_seen,
            label=run.name,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
        )
    axes.set_xlabel("after task")
    axes.set_ylabel("pw-JS over all classes seen so far")
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with write_atomically(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=150)
