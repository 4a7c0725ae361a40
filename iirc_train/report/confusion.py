"""Confusion counts of several runs: sums, classes, superclasses, levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iirc_data.taxonomy import Taxonomy
from iirc_train.report.class_tree import top_down
from iirc_train.run.confusion import Confusion


def added(confusions: Sequence[Confusion]) -> Confusion:
    """Sum the counts of several runs, which may have the classes in different orders."""
    names = list(dict.fromkeys(name for one in confusions for name in one.class_names))
    place = {name: n for n, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    n_samples = np.zeros(len(names), dtype=np.int64)
    for one in confusions:
        places = [place[name] for name in one.class_names]
        counts[np.ix_(places, places)] += one.counts
        n_samples[places] += one.n_samples
    return Confusion(names, counts, n_samples)


def by_superclass(confusion: Confusion, taxonomy: Taxonomy) -> Confusion:
    """Return the counts with each superclass followed by all below it, other classes last."""
    known = dict.fromkeys([*top_down(taxonomy), *confusion.class_names])
    seen = set(confusion.class_names)
    return confusion.selected([name for name in known if name in seen])


@dataclass(frozen=True)
class Refinement:
    """How often a superclass of a class is predicted for the class's images.

    Attributes:
        superclass: Name of the direct superclass.
        subclass: Name of the class.
        subclass_recall: Fraction of the subclass's images for which the subclass is predicted.
        superclass_recall: Fraction of the same images for which the superclass is predicted.
        least_together: Lower bound of the fraction, among the images for which the subclass is
            predicted, for which the superclass is predicted too; NaN if the subclass is never
            predicted.
        most_together: Upper bound of the same fraction.
    """

    superclass: str
    subclass: str
    subclass_recall: float
    superclass_recall: float
    least_together: float
    most_together: float


def refinements(confusion: Confusion, taxonomy: Taxonomy) -> list[Refinement]:
    """Return a refinement for each class and direct superclass that were both seen.

    Counts of single labels bound how often two labels are predicted together: if a of n images
    have one label and b have the other, at least a + b - n and at most min(a, b) have both.
    """
    place = {name: n for n, name in enumerate(confusion.class_names)}
    found = []
    edges = [(name, above) for name in place for above in taxonomy.superclasses_of(name)]
    for subclass, superclass in edges:
        row = place[subclass]
        n = int(confusion.n_samples[row])
        if superclass not in place or n == 0:
            continue
        sub, sup = (int(confusion.counts[row, place[name]]) for name in (subclass, superclass))
        found.append(
            Refinement(
                superclass,
                subclass,
                sub / n,
                sup / n,
                max(0, sub + sup - n) / sub if sub else np.nan,
                min(sub, sup) / sub if sub else np.nan,
            )
        )
    return found


def mean_recalls(recalls: Mapping[str, float], taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Return the mean recall of the classes of each level, float64 (levels,); NaN for none.

    Args:
        recalls: The recall of each class, by name.
        taxonomy: The taxonomy.
    """
    of_level: list[list[float]] = [[] for _ in range(taxonomy.n_levels)]
    for name, recall in recalls.items():
        if not np.isnan(recall):
            of_level[taxonomy.levels.get(name, 0)].append(recall)
    return np.array([np.mean(known) if known else np.nan for known in of_level])
