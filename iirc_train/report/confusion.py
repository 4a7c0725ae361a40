"""Confusion counts of true and predicted labels, from the folder ``confusion/`` of a run."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.run.directory import CONFUSION_NAME

_FILE_NAME = re.compile(r"after_task_(\d+)\.npz")


@dataclass(frozen=True)
class Confusion:
    """Counts on the test split over all seen classes.

    An image has several true and several predicted labels, so a row may have any sum.

    Attributes:
        class_names: The n classes.
        counts: int64 (n, n): number of images with true label i (row) and predicted label j
            (column).
        n_samples: int64 (n,): number of images with true label i.
    """

    class_names: list[str]
    counts: NDArray[np.int64]
    n_samples: NDArray[np.int64]

    @property
    def rates(self) -> NDArray[np.float64]:
        """Fraction of the images with true label i for which label j is predicted, in [0, 1].

        The row of a label without images is NaN.
        """
        n_samples = np.where(self.n_samples > 0, self.n_samples, np.nan)
        return self.counts / n_samples[:, None]

    @property
    def recall(self) -> dict[str, float]:
        """For each class, the fraction of its images for which it is predicted."""
        return dict(zip(self.class_names, np.diag(self.rates).tolist(), strict=True))

    def selected(self, names: Sequence[str]) -> "Confusion":
        """Return the counts of the named classes, in the given order."""
        place = {name: n for n, name in enumerate(self.class_names)}
        kept = [place[name] for name in names]
        return Confusion(list(names), self.counts[np.ix_(kept, kept)], self.n_samples[kept])


def read_confusions(run: Path) -> dict[int, Confusion]:
    """Read a run's counts.

    Returns:
        The counts by task after which they were written, in order; empty if the run has none.

    Raises:
        ConfigurationError: A file is damaged.
    """
    found = {
        int(match[1]): path
        for path in (run / CONFUSION_NAME).glob("*.npz")
        if (match := _FILE_NAME.fullmatch(path.name))
    }
    return {task: _read(found[task]) for task in sorted(found)}


def _read(path: Path) -> Confusion:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["class_names"]]
            counts, n_samples = arrays["counts"], arrays["n_samples"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{path} is damaged: {error}; evaluate the run again") from error
    if counts.shape != (len(names), len(names)) or n_samples.shape != (len(names),):
        raise ConfigurationError(
            f"{path} is damaged: {len(names)} classes, but counts {counts.shape} and n_samples "
            f"{n_samples.shape}; evaluate the run again"
        )
    return Confusion(names, counts, n_samples)


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
    """Return the mean recall of superclasses and of other classes; NaN if there are none."""
    recall = {name: share for name, share in confusion.recall.items() if not np.isnan(share)}
    upper = [share for name, share in recall.items() if name in benchmark.superclasses]
    lower = [share for name, share in recall.items() if name not in benchmark.superclasses]
    return _mean(upper), _mean(lower)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else np.nan
