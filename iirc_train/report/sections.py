"""The sections of the page, one for each benchmark, as text and figures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from iirc_train.metrics import shown_labels
from iirc_train.report.classes import ClassesOfGroup, classes_of
from iirc_train.report.comparison import Comparison, Row
from iirc_train.report.costs import flat_record, read_cost
from iirc_train.report.figure_files import inline_svg, write_figure
from iirc_train.report.paper import paper_curves
from iirc_train.report.plots import curves_figure, tasks_figure
from iirc_train.report.runs import Group, Run
from iirc_train.report.settings_table import SettingsTable, settings_table
from iirc_train.report.summary import spread
from iirc_train.run.results import PWJS
from iirc_train.run.summaries import SummaryTable, metric_name

CURVES_CAPTION = (
    "Mean over the runs of each group that have finished the task; the band is ± one standard "
    "deviation. A horizontal line with one marker is joint training, on all tasks at once."
)


@dataclass(frozen=True)
class ShownFigure:
    """A figure of the page.

    Attributes:
        svg: The figure as an SVG element.
        title: Title.
        caption: Explanation below the figure.
    """

    svg: Markup
    title: str
    caption: str


@dataclass(frozen=True)
class CostRow:
    """The cost of a group's runs as text; empty if it was not measured.

    Attributes:
        waiting: For each run, its folder and how long its network waited for images.
    """

    name: str
    images_per_second: str
    hours: str
    waiting_share: str
    peak_memory: str
    waiting: list[tuple[str, str]]


@dataclass(frozen=True)
class ClassesSection:
    """A group's section on superclasses and subclasses."""

    classes: ClassesOfGroup
    figures: list[ShownFigure]


@dataclass(frozen=True)
class Section:
    """The section of the page on one benchmark.

    Attributes:
        name: Name of the benchmark.
        description: Its description; empty if its definition is not available.
        metric_name: What texts call the metric that the runs are judged by.
        tables: The summary numbers, by table.
        rows: The summary of each group.
        curves: Scores over tasks.
        has_paper_curves: Whether ``curves`` show the paper's curves.
        tasks: For each group with several tasks, the scores on each task after each task.
        classes: The classes of each group with counts of predicted labels.
        without_confusion: Names of the other groups.
        costs: The cost of each group.
        settings: The settings of the groups.
        unfinished: The unfinished runs, with their progress.
        records: For each run, its folder and the record of its surroundings.
    """

    name: str
    description: str
    metric_name: str
    tables: Sequence[SummaryTable]
    rows: list[Row]
    curves: list[ShownFigure]
    has_paper_curves: bool
    tasks: list[ShownFigure]
    classes: list[ClassesSection]
    without_confusion: list[str]
    costs: list[CostRow]
    settings: SettingsTable
    unfinished: list[str]
    records: list[tuple[str, dict[str, str]]]


class FigureFolder:
    """Writes the figures of the page to a folder, each under a unique name.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()

    def add(self, figure: Figure, title: str, name: str, caption: str = "") -> ShownFigure:
        """Write a figure as PNG and SVG, and return it for the page.

        Args:
            figure: The figure.
            title: Title.
            name: Name of its files; characters other than letters and digits are replaced.
            caption: Explanation below the figure.
        """
        stem = base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "figure"
        number = 2
        while stem in self._names:
            stem, number = f"{base}-{number}", number + 1
        self._names.add(stem)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # keeps one layout for all formats
        for suffix in ("png", "svg"):
            write_figure(figure, self.folder / f"{stem}.{suffix}")
        return ShownFigure(Markup(inline_svg(figure, stem, title)), title, caption)


def section_of(name: str, groups: Sequence[Group], figures: FigureFolder) -> Section:
    """Return the section on a benchmark's groups, and write its figures.

    Raises:
        ConfigurationError: The timings, record or confusion counts of a run are damaged.
    """
    benchmark = groups[0].runs[0].benchmark
    comparison = Comparison.of(name, groups)
    metric = comparison.metric
    curves = [
        figures.add(
            curves_figure(groups, shown, name),
            f"{heading} on the test split after each task.",
            f"{name}-{heading}",
            CURVES_CAPTION,
        )
        for shown, heading in shown_labels().items()
        if any(group.results(shown) for group in groups)
    ]
    several_tasks = [g for g in groups if max(run.n_tasks_done for run in g.runs) > 1]
    runs = [run for group in groups for run in group.runs]
    classes, without = _classes(groups, name, figures)
    return Section(
        name=name,
        description=benchmark.description if benchmark else "",
        metric_name=metric_name(metric),
        tables=comparison.tables,
        rows=comparison.rows,
        curves=curves,
        has_paper_curves=bool(paper_curves(name, PWJS)),
        tasks=[
            figures.add(tasks_figure(g, metric), g.name, f"{name}-tasks-{g.name}")
            for g in several_tasks
        ],
        classes=classes,
        without_confusion=without,
        costs=[_cost_row(group) for group in groups],
        settings=settings_table(groups),
        unfinished=[_progress(run) for run in runs if not run.finished],
        records=[
            (str(run.path), record) for run in runs if (record := flat_record(run.path)) is not None
        ],
    )


def _progress(run: Run) -> str:
    return f"{run.path}: {run.n_tasks_done} of {run.n_tasks} tasks"


def _classes(
    groups: Sequence[Group], name: str, figures: FigureFolder
) -> tuple[list[ClassesSection], list[str]]:
    """Return the sections on classes, and the names of the groups without one."""
    found = {group.name: classes_of(group) for group in groups}
    sections = [
        ClassesSection(
            classes,
            [
                figures.add(shown, title, f"{name}-{title}-{classes.name}", caption)
                for title, caption, shown in classes.figures()
            ],
        )
        for classes in found.values()
        if classes is not None
    ]
    return sections, [name for name, classes in found.items() if classes is None]


def _cost_row(group: Group) -> CostRow:
    of_runs = [(run.path, cost) for run in group.runs if (cost := read_cost(run.path)) is not None]
    costs = [cost for _, cost in of_runs]
    peaks = [cost.peak_memory for cost in costs if cost.peak_memory is not None]
    hours = spread([cost.hours for cost in costs])
    speed = spread([cost.images_per_second for cost in costs])
    waiting = spread([cost.waiting_share for cost in costs if cost.waiting_share is not None])
    return CostRow(
        group.name,
        f"{speed.mean:,.0f}" if speed.n_runs else "",
        f"{hours.mean:.2f}" if hours.n_runs else "",
        f"{100 * waiting.mean:.0f}" if waiting.n_runs else "",
        f"{max(peaks) / 2**30:.2f}" if peaks else "",
        [(str(path), cost.waiting_text) for path, cost in of_runs if cost.waiting_text],
    )
