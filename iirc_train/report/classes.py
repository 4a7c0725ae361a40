"""The predictions of a group of runs for superclasses and subclasses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure

from iirc_data.benchmarks import Benchmark
from iirc_data.taxonomies.reduction import restricted
from iirc_data.taxonomy import Taxonomy
from iirc_train.report.class_tree import ClassTree, class_tree, percent
from iirc_train.report.confusion import Refinement, added, by_superclass, refinements
from iirc_train.report.confusion_plots import confusion_figure, recalls_figure
from iirc_train.report.runs import Group
from iirc_train.run.confusion import Confusion, read_recalls

CONFUSION_CAPTION = (
    "Row: true label; column: predicted label; colour: fraction of the row's test images for which "
    "the column's label is predicted, 0 to 1. Each superclass (capitals) precedes its subclasses. "
    "An image has several labels, so rows do not sum to 1."
)
RECALLS_CAPTION = (
    "Fraction of a class's test images for which it is predicted, 0 to 1: mean over the classes of "
    "each level seen so far, and over runs. Classes without superclass are at level 0."
)


@dataclass(frozen=True)
class ClassRow:
    """The results of a class as text; fractions in percent, empty if undefined.

    Attributes:
        name: Readable name.
        level: Its level in the taxonomy of the scheduled classes.
        is_superclass: Whether it is a superclass.
        n_samples: Number of its test images, summed over runs.
        recall: Fraction of these images for which the class is predicted.
        superclass_recall: Fraction of these images for which its superclass is predicted, for each
            direct superclass.
        together: Of the images for which the class is predicted, the fraction for which its
            superclass is predicted too, as bounds that follow from the counts; likewise.
    """

    name: str
    level: int
    is_superclass: bool
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
        history: For each run, the recall of each class after each task.
        last: The sum over runs of the last counts, in the order of
            :func:`~iirc_train.report.confusion.by_superclass`.
    """

    name: str
    n_runs: int
    after: list[int]
    benchmark: Benchmark
    history: list[dict[int, dict[str, float]]]
    last: Confusion

    def figures(self) -> list[tuple[str, str, Figure]]:
        """Return the figures, each with its title and caption."""
        confusion = confusion_figure(self.last, self.benchmark)
        figures = [("Confusion of labels.", CONFUSION_CAPTION, confusion)]
        if max(map(len, self.history)) > 1:
            recalls = recalls_figure(self.history, self.scheduled)
            figures.append(("Recall after each task.", RECALLS_CAPTION, recalls))
        return figures

    @cached_property
    def scheduled(self) -> Taxonomy:
        """The taxonomy without superclasses that no task introduces, whose levels metrics count."""
        taxonomy = self.benchmark.taxonomy
        scheduled = {name for tasks in self.benchmark.schedules for task in tasks for name in task}
        return restricted(taxonomy, taxonomy.leaf_classes, scheduled)

    @cached_property
    def tree(self) -> ClassTree:
        """The taxonomy with what is known of each class after each task."""
        return class_tree(self.history, self.benchmark)

    @cached_property
    def rows(self) -> list[ClassRow]:
        """A row for each class; subclasses follow their superclass."""
        taxonomy = self.benchmark.taxonomy
        found: dict[str, list[Refinement]] = {}
        for refinement in refinements(self.last, taxonomy):
            found.setdefault(refinement.subclass, []).append(refinement)
        recall = self.last.recall
        return [
            ClassRow(
                name=self.benchmark.readable_name(name),
                level=self.scheduled.levels.get(name, 0),
                is_superclass=name in taxonomy.superclasses,
                n_samples=f"{n_samples:,}",
                recall=percent(recall[name]),
                superclass_recall=self._each(found.get(name, []), _superclass_recall),
                together=self._each(found.get(name, []), _together),
            )
            for name, n_samples in zip(self.last.class_names, self.last.n_samples, strict=True)
        ]

    def _each(self, of_class: Sequence[Refinement], text: Callable[[Refinement], str]) -> str:
        """Return a text for each direct superclass, which is named if there are several."""
        if len(of_class) == 1:
            return text(of_class[0])
        names = [self.benchmark.readable_name(one.superclass) for one in of_class]
        return "; ".join(f"{name} {text(one)}" for name, one in zip(names, of_class, strict=True))


def classes_of(group: Group) -> ClassesOfGroup | None:
    """Return the predictions of a group's finished runs, or of all its runs if none is finished.

    Returns:
        None if no run has counts, or if the benchmark's definition is not available.

    Raises:
        ConfigurationError: A file of counts is damaged.
    """
    benchmark = group.runs[0].benchmark
    if benchmark is None:
        return None
    runs = [found for run in group.complete_runs if (found := read_recalls(run.path))]
    if not runs:
        return None
    history = [run.after for run in runs]
    return ClassesOfGroup(
        group.name,
        len(history),
        sorted({max(run) for run in history}),
        benchmark,
        history,
        by_superclass(added([run.last for run in runs]), benchmark.taxonomy),
    )


def _superclass_recall(one: Refinement) -> str:
    return percent(one.superclass_recall)


def _together(one: Refinement) -> str:
    low, high = percent(one.least_together), percent(one.most_together)
    return low if low == high else f"{low} to {high}"
