"""The predictions of a group of runs for superclasses and subclasses."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from iirc_data.benchmarks import Benchmark
from iirc_train.report.confusion import added, by_superclass, refinements
from iirc_train.report.confusion_plots import confusion_figure, recalls_figure
from iirc_train.report.runs import Group
from iirc_train.run.confusion import Confusion, read_confusions

CONFUSION_CAPTION = (
    "Row: true label; column: predicted label; colour: fraction of the row's test images for which "
    "the column's label is predicted, 0 to 1. Each superclass (capitals) precedes its subclasses. "
    "An image has several labels, so rows do not sum to 1."
)
RECALLS_CAPTION = (
    "Fraction of a class's test images for which it is predicted, 0 to 1: mean over the classes "
    "seen so far and over runs."
)


@dataclass(frozen=True)
class ClassRow:
    """The results of a class as text; fractions in percent, empty if undefined.

    Attributes:
        name: Readable name.
        is_superclass: Whether it is a superclass.
        is_subclass: Whether it has a superclass.
        n_samples: Number of its test images, summed over runs.
        recall: Fraction of these images for which the class is predicted.
        superclass_recall: Fraction of these images for which its superclass is predicted.
        together: Of the images for which the class is predicted, the fraction for which its
            superclass is predicted too, as bounds that follow from the counts.
    """

    name: str
    is_superclass: bool
    is_subclass: bool
    n_samples: str
    recall: str
    superclass_recall: str = ""
    together: str = ""


@dataclass(frozen=True)
class ClassesOfGroup:
    """The predictions of a group's runs.

    Attributes:
        name: Name of the group.
        n_runs: Number of runs with counts.
        after: The tasks after which the last counts were written, over runs.
        benchmark: The benchmark.
        history: For each run, the counts after each task.
        last: The sum over runs of the last counts.
    """

    name: str
    n_runs: int
    after: list[int]
    benchmark: Benchmark
    history: list[dict[int, Confusion]]
    last: Confusion

    def figures(self) -> list[tuple[str, str, Figure]]:
        """Return the figures, each with its title and caption."""
        confusion = confusion_figure(self.last, self.benchmark)
        figures = [("Confusion of labels.", CONFUSION_CAPTION, confusion)]
        if max(map(len, self.history)) > 1:
            recalls = recalls_figure(self.history, self.benchmark)
            figures.append(("Recall after each task.", RECALLS_CAPTION, recalls))
        return figures

    def rows(self) -> list[ClassRow]:
        """Return a row for each class; subclasses follow their superclass."""
        counts = by_superclass(self.last, self.benchmark)
        found = {row.subclass: row for row in refinements(counts, self.benchmark)}
        rows = []
        for name, n_samples in zip(counts.class_names, counts.n_samples, strict=True):
            seen_with = found.get(name)
            row = ClassRow(
                name=self.benchmark.readable_name(name),
                is_superclass=name in self.benchmark.superclasses,
                is_subclass=bool(self.benchmark.taxonomy.superclasses_of(name)),
                n_samples=f"{n_samples:,}",
                recall=_percent(counts.recall[name]),
                superclass_recall=_percent(seen_with.superclass_recall) if seen_with else "",
                together=_range(seen_with.least_together, seen_with.most_together)
                if seen_with
                else "",
            )
            rows.append(row)
        return rows


def classes_of(group: Group, benchmark: Benchmark | None) -> ClassesOfGroup | None:
    """Return the predictions of a group's finished runs, or of all its runs if none is finished.

    Returns:
        None if no run has counts, or if the benchmark's definition is not available.

    Raises:
        ConfigurationError: A file of counts is damaged.
    """
    if benchmark is None:
        return None
    history = [found for run in group.complete_runs if (found := read_confusions(run.path))]
    if not history:
        return None
    return ClassesOfGroup(
        group.name,
        len(history),
        sorted({max(run) for run in history}),
        benchmark,
        history,
        added([run[max(run)] for run in history]),
    )


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}"


def _range(least: float, most: float) -> str:
    low, high = _percent(least), _percent(most)
    return low if low == high else f"{low} to {high}"
