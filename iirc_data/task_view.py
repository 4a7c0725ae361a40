"""Task views: the samples of a task and the labels that they show."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.files import canonical_json


@dataclass(frozen=True, eq=False)
class TaskView:
    """The samples and visible labels of one task, or of several together.

    Attributes:
        class_names: All scheduled classes in order of appearance; class indices are positions in
            this tuple.
        task_ids: The tasks whose samples are shown.
        seen_up_to: Latest task whose classes count as seen.
        n_seen_classes: Number of classes of the tasks 0 to ``seen_up_to``.
        task_classes: Indices of the classes that the tasks ``task_ids`` introduce, ascending.
        sample_ids: int64 (N,), ascending, without repetition.
        labels: int32 (N, L), class indices of the visible labels, superclass before subclass;
            -1 for none. The first is always a class. L is the most labels that a sample of the
            dataset has, at least 2.
        places: int64 (N,), a key that increases in the order of the published dataset, used to
            choose the first samples of a class; None if that is the order of ``sample_ids``. It
            follows from benchmark and samples and is not part of the digest.
    """

    class_names: tuple[str, ...]
    task_ids: tuple[int, ...]
    seen_up_to: int
    n_seen_classes: int
    task_classes: tuple[int, ...]
    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    places: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.sample_ids.flags.writeable = False
        self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def task_class_names(self) -> tuple[str, ...]:
        """Names of the classes that the view's tasks introduce, in order of their indices."""
        return tuple(self.class_names[index] for index in self.task_classes)

    @property
    def seen_class_names(self) -> tuple[str, ...]:
        """Names of the classes seen so far, in order of their indices."""
        return self.class_names[: self.n_seen_classes]

    def positions_of_class(self, class_index: int, first: int | None = None) -> NDArray[np.int64]:
        """Return the positions in this view of the samples that show a class, ascending.

        Args:
            class_index: The class.
            first: Number of samples to return, the first in the order of the published dataset;
                None for all.
        """
        positions = np.flatnonzero((self.labels == class_index).any(axis=1))
        if first is None or self.places is None:
            return positions[:first]
        in_order = positions[np.argsort(self.places[positions], kind="stable")]
        return np.sort(in_order[:first])

    def subset(self, positions: Sequence[int] | NDArray[np.int64]) -> Self:
        """Return a view of some of this view's samples.

        Args:
            positions: Positions in this view, in the order of the result.
        """
        chosen = np.asarray(positions, np.int64)
        return replace(
            self,
            sample_ids=self.sample_ids[chosen],
            labels=self.labels[chosen],
            places=None if self.places is None else self.places[chosen],
        )

    def digest(self) -> str:
        """Return the SHA-256 of tasks, samples and labels."""
        head = [self.class_names, self.task_ids, self.seen_up_to, self.n_seen_classes]
        digest = hashlib.sha256(canonical_json(head))
        digest.update(np.ascontiguousarray(self.sample_ids, "<i8").data)
        digest.update(np.ascontiguousarray(self.labels, "<i4").data)
        return digest.hexdigest()
