"""What confusion counts of several runs, classes and superclasses show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iirc_data.benchmarks import Benchmark
from iirc_train.run.confusion import Confusion


def added(confusions: Sequence[Confusion]) -> Confusion:
    """Add the counts of several runs up, whichever order they met the classes in."""
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
    """Return the counts with each superclass followed by its subclasses, lone classes last."""
    taxonomy = [name for sup, subs in benchmark.superclasses.items() for name in (sup, *subs)]
    known = dict.fromkeys([*taxonomy, *benchmark.other_classes, *confusion.class_names])
    return confusion.selected([name for name in known if name in set(confusion.class_names)])


@dataclass(frozen=True)
class Refinement:
    """Whether a subclass's superclass is still predicted beside it.

    Attributes:
        superclass: Name of the superclass.
        subclass: Name of the subclass.
        subclass_recall: Share of the subclass's images that the subclass is predicted for.
        superclass_recall: Share of the same images that the superclass is predicted for.
        least_together: At least this share of the images with the subclass predicted has the
            superclass predicted too; NaN where the subclass is never predicted.
        most_together: At most this share.
    """

    superclass: str
    subclass: str
    subclass_recall: float
    superclass_recall: float
    least_together: float
    most_together: float


def refinements(confusion: Confusion, benchmark: Benchmark) -> list[Refinement]:
    """Return for each subclass whose superclass is known too, what both are predicted for.

    Counts of single labels bound how often two are predicted together: of n images, a with one
    label and b with the other, at least a + b - n and at most min(a, b) have both.
    """
    place = {name: n for n, name in enumerate(confusion.class_names)}
    found = []
    for subclass, superclass in benchmark.superclass_of.items():
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
    """Return the mean recall of superclasses and of all other classes; NaN where there is none."""
    recall = {name: share for name, share in confusion.recall.items() if not np.isnan(share)}
    upper = [share for name, share in recall.items() if name in benchmark.superclasses]
    lower = [share for name, share in recall.items() if name not in benchmark.superclasses]
    return _mean(upper), _mean(lower)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else np.nan
