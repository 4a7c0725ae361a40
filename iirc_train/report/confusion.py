"""Confusion counts of several runs: sums, classes, superclasses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iirc_data.benchmarks import Benchmark
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


def by_superclass(confusion: Confusion, benchmark: Benchmark) -> Confusion:
    """Return the counts with each superclass followed by its subclasses, other classes last."""
    taxonomy = [name for sup, subs in benchmark.superclasses.items() for name in (sup, *subs)]
    known = dict.fromkeys([*taxonomy, *benchmark.other_classes, *confusion.class_names])
    return confusion.selected([name for name in known if name in set(confusion.class_names)])


@dataclass(frozen=True)
class Refinement:
    """How often the superclass of a subclass is predicted for the subclass's images.

    Attributes:
        superclass: Name of the superclass.
        subclass: Name of the subclass.
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


def refinements(confusion: Confusion, benchmark: Benchmark) -> list[Refinement]:
    """Return a refinement for each subclass that was seen together with its superclass.

    Counts of single labels bound how often two labels are predicted together: if a of n images
    have one label and b have the other, at least a + b - n and at most min(a, b) have both.
    """
    place = {name: n for n, name in enumerate(confusion.class_names)}
    found = []
    edges = [(sub, sup) for sup, subs in benchmark.superclasses.items() for sub in subs]
    for subclass, superclass in edges:
        if subclass not in place or superclass not in place:
            continue
        row = place[subclass]
        n = int(confusion.n_samples[row])
        if n == 0:
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


def mean_recalls(confusion: Confusion, benchmark: Benchmark) -> tuple[float, float]:
    """Return the mean recall of superclasses and of other classes; NaN if there are none."""
    recall = {name: share for name, share in confusion.recall.items() if not np.isnan(share)}
    upper = [share for name, share in recall.items() if name in benchmark.superclasses]
    lower = [share for name, share in recall.items() if name not in benchmark.superclasses]
    return _mean(upper), _mean(lower)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else np.nan
