"""Confusion counts, ``confusion/`` of a run: which labels are predicted for which true label."""

import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_data.files import make_folder, remove_partial_files, write_atomically

CONFUSION_NAME = "confusion"

_FILE_NAME = re.compile(r"after_task_(\d+)\.npz")


@dataclass(frozen=True)
class Confusion:
    """Counts on the test split over all seen classes.

    An image can have several labels, and several can be predicted for it, so rows have no fixed
    sum.

    Attributes:
        class_names: Names of the n classes.
        counts: int64 (n, n): images with true label i (row) and predicted label j (column).
        n_samples: int64 (n,): images with true label i.
    """

    class_names: list[str]
    counts: NDArray[np.int64]
    n_samples: NDArray[np.int64]

    @property
    def rates(self) -> NDArray[np.float64]:
        """float64 (n, n): share of the images with true label i for which label j is predicted.

        In [0, 1]; NaN in the row of a label without images.
        """
        n_samples = np.where(self.n_samples > 0, self.n_samples, np.nan)
        return self.counts / n_samples[:, None]

    @property
    def recall(self) -> dict[str, float]:
        """Maps each class to its recall: the fraction of its images for which it is predicted."""
        n_samples = np.where(self.n_samples > 0, self.n_samples, np.nan)
        recalls = np.diag(self.counts) / n_samples
        return dict(zip(self.class_names, recalls.tolist(), strict=True))

    def selected(self, names: Sequence[str]) -> "Confusion":
        """Return the counts of some classes in the given order."""
        place = {name: n for n, name in enumerate(self.class_names)}
        kept = [place[name] for name in names]
        return Confusion(list(names), self.counts[np.ix_(kept, kept)], self.n_samples[kept])


def write_confusion(run: Path, after_task: int, confusion: Confusion) -> None:
    """Write ``confusion/after_task_NNN.npz`` of a run, replacing an earlier one.

    Args:
        run: The run's folder.
        after_task: Latest task seen.
        confusion: The counts.
    """
    with write_atomically(_path(run, after_task)) as file:
        np.savez_compressed(
            file,
            counts=confusion.counts,
            n_samples=confusion.n_samples,
            class_names=np.array(confusion.class_names),
        )


def forget_confusions(run: Path, first_task: int) -> None:
    """Remove the counts after a task and after those that follow it."""
    folder = run / CONFUSION_NAME
    if folder.exists():
        remove_partial_files(folder)
        kept = {_path(run, task) for task in range(first_task)}
        for path in set(folder.glob("after_task_*.npz")) - kept:
            path.unlink()


def copy_confusions(run: Path, target: Path, last_task: int) -> None:
    """Copy the counts after the tasks up to one to the folder of another run."""
    for task in range(last_task + 1):
        if _path(run, task).exists():
            make_folder(target / CONFUSION_NAME)
            shutil.copyfile(_path(run, task), _path(target, task))


def read_confusions(run: Path) -> dict[int, Confusion]:
    """Read the counts of a run.

    Returns:
        Task to the counts after it, in order; empty if the run wrote none.

    Raises:
        ConfigurationError: A file is damaged.
    """
    return {task: _read(path) for task, path in _found(run).items()}


class RecallHistory(NamedTuple):
    """How well a run has known each class.

    Attributes:
        after: Maps each task to the recall of each class after it, by name.
        last: The counts after the last of these tasks.
    """

    after: dict[int, dict[str, float]]
    last: Confusion


def read_recalls(run: Path) -> RecallHistory | None:
    """Read what the counts of a run say about each class, one file at a time.

    Returns:
        None if the run wrote no counts.

    Raises:
        ConfigurationError: A file is damaged.
    """
    after: dict[int, dict[str, float]] = {}
    last = None
    for task, path in _found(run).items():
        last = _read(path)
        after[task] = last.recall
    return None if last is None else RecallHistory(after, last)


def _found(run: Path) -> dict[int, Path]:
    found = {
        int(match[1]): path
        for path in (run / CONFUSION_NAME).glob("*.npz")
        if (match := _FILE_NAME.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def _path(run: Path, after_task: int) -> Path:
    return run / CONFUSION_NAME / f"after_task_{after_task:03d}.npz"


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
