"""Task views: which samples, under which labels, a task shows."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark, SamplingSettings, class_order
from iirc_data.dataset_checks import check_classes
from iirc_data.definitions import (
    CIL_SETUP,
    NO_LABEL,
    POSTTASK_VALID,
    TEST,
    Labels,
    Setup,
    SplitName,
)
from iirc_data.errors import BenchmarkError
from iirc_data.files import canonical_json
from iirc_data.sampling import classes_with_empty_share, sample_rows_by_class
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.table import SampleTable
from iirc_data.splits import in_published_order, split_sample_ids


@dataclass(frozen=True, eq=False)
class TaskView:
    """The samples and labels that one task, or several together, show.

    Attributes:
        class_names: All scheduled classes in order of appearance; an index into it is a class
            index.
        task_ids: The tasks whose samples are shown.
        seen_up_to: Latest task whose classes count as seen.
        n_seen_classes: Number of classes of the tasks 0 to ``seen_up_to``.
        task_classes: Indices of the classes that the tasks ``task_ids`` introduce, ascending.
        sample_ids: int64 (N,), ascending, without repetition.
        labels: int32 (N, 2), class indices of the visible labels, superclass before subclass;
            -1 for none. The first is always a class.
        places: int64 (N,), ascending with each sample's place in the published dataset, by which
            the first samples of a class are chosen; None where that is the order of ``sample_ids``.
            It follows from benchmark and samples, and is not part of the digest.
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
        """Return the positions in this view, ascending, of the samples that show a class.

        Args:
            class_index: The class.
            first: Only the first so many in the order of the published dataset; None for all.
        """
        positions = np.flatnonzero((self.labels == class_index).any(axis=1))
        if first is None or self.places is None:
            return positions[:first]
        in_order = positions[np.argsort(self.places[positions], kind="stable")]
        return np.sort(in_order[:first])

    def subset(self, positions: Sequence[int] | NDArray[np.int64]) -> Self:
        """Return the view of some of this view's samples.

        Args:
            positions: Positions in this view, in the order wanted.
        """
        chosen = np.asarray(positions, np.int64)
        return replace(
            self,
            sample_ids=self.sample_ids[chosen],
            labels=self.labels[chosen],
            places=None if self.places is None else self.places[chosen],
        )

    def digest(self) -> str:
        """Return a SHA-256 that is equal exactly where samples and labels are equal."""
        head = [self.class_names, self.task_ids, self.seen_up_to, self.n_seen_classes]
        digest = hashlib.sha256(canonical_json(head))
        digest.update(np.ascontiguousarray(self.sample_ids, "<i8").data)
        digest.update(np.ascontiguousarray(self.labels, "<i4").data)
        return digest.hexdigest()


class TaskSequence:
    """The tasks of one split: gives the view of any of them.

    Args:
        sample_ids: int64 (N,), ids of the split's samples, in the order that sampling goes by.
        labels: int32 (N, 2), class indices of each sample's full label combination: superclass
            and subclass, or the only label and -1. Indices from ``len(class_names)`` on stand
            for classes that no task names.
        tasks: For each task the names of its classes: those that it introduces, and any that
            come again.
        setup: ``"IIRC"`` or ``"CIL"``. The latter never samples: a sample with two labels belongs
            to the task of each of them that is scheduled, as published.
        sampling: Shares of superclasses and subclasses; None shows every sample (test mode).
        complete_information: Show all labels seen so far, not only the current task's.
    """

    def __init__(
        self,
        sample_ids: NDArray[np.int64],
        labels: NDArray[np.int32],
        tasks: Sequence[Sequence[str]],
        *,
        setup: Setup,
        sampling: SamplingSettings | None,
        complete_information: bool,
    ) -> None:
        self.tasks = [list(task) for task in tasks]
        self.class_names_to_idx = class_order(self.tasks)
        self.complete_information = complete_information
        self._sample_ids = sample_ids
        self._labels = labels
        self._rows_by_class = sample_rows_by_class(labels, None if setup == CIL_SETUP else sampling)
        self._classes = [[self.class_names_to_idx[name] for name in task] for task in self.tasks]
        self._warn_of_empty_shares()
        self._n_labels = max(len(self.class_names_to_idx), int(labels.max(initial=NO_LABEL)) + 1)

    @classmethod
    def from_table(
        cls,
        benchmark: Benchmark,
        manifest: Manifest,
        table: SampleTable,
        split: SplitName,
        *,
        schedule: int = 0,
        joint: bool = False,
        complete_information: bool | None = None,
        samples_per_class: int | None = None,
    ) -> Self:
        """Make the tasks of one split of a sharded dataset.

        Args:
            benchmark: The benchmark.
            manifest: The dataset's manifest.
            table: The dataset's sample table.
            split: ``"train"``, ``"intask_valid"``, ``"posttask_valid"`` or ``"test"``. Test and
                post-task validation show every sample.
            schedule: Number of the benchmark's schedule.
            joint: Put all classes into one task.
            complete_information: Show all labels seen so far; by default only where every sample
                is shown.
            samples_per_class: Use only the first so many images of each leaf class of the split
                (for quick experiments).

        Raises:
            BenchmarkError: The dataset lacks classes of the benchmark, or a split.
        """
        test_mode = split in (TEST, POSTTASK_VALID)
        tasks = benchmark.tasks(schedule, joint=joint)
        check_classes(benchmark, manifest, tasks)
        sample_ids = split_sample_ids(benchmark, manifest, table, split, samples_per_class)
        class_ids = table.class_id[sample_ids]
        sample_ids = sample_ids[in_published_order(benchmark, manifest.classes, class_ids)]
        combinations = label_combinations(
            map(benchmark.labels_of, manifest.classes), class_order(tasks)
        )
        return cls(
            sample_ids,
            combinations[table.class_id[sample_ids]],
            tasks,
            setup=benchmark.setup,
            sampling=None if test_mode else benchmark.sampling,
            complete_information=test_mode
            if complete_information is None
            else complete_information,
        )

    def __len__(self) -> int:
        return len(self.tasks)

    def view(self, task_ids: int | Iterable[int], seen_up_to: int | None = None) -> TaskView:
        """Return what one task shows, or several together.

        With incomplete information a sample shows its labels among the given tasks' classes;
        with complete information, those among the classes of tasks 0 to ``seen_up_to``.

        Args:
            task_ids: The task, or several.
            seen_up_to: Latest task seen so far; by default the latest of ``task_ids``.

        Raises:
            BenchmarkError: There is no such task, or ``seen_up_to`` is before a given task.
        """
        chosen = (task_ids,) if isinstance(task_ids, int) else tuple(task_ids)
        latest = max(chosen, default=-1)
        seen_up_to = latest if seen_up_to is None else seen_up_to
        if not chosen or min(chosen) < 0 or not latest <= seen_up_to < len(self.tasks):
            raise BenchmarkError(
                f"tasks {chosen} seen up to {seen_up_to}: expected tasks among 0 to "
                f"{len(self.tasks) - 1}, none after the latest seen"
            )
        visible = np.zeros(self._n_labels + 1, dtype=bool)  # the last stands for "no label"
        seen = range(seen_up_to + 1)
        visible[self._classes_of(seen if self.complete_information else chosen)] = True
        rows = self.rows(chosen)
        rows = rows[np.argsort(self._sample_ids[rows], kind="stable")]
        return TaskView(
            class_names=tuple(self.class_names_to_idx),
            task_ids=chosen,
            seen_up_to=seen_up_to,
            n_seen_classes=len(set(self._classes_of(seen))),
            task_classes=tuple(sorted(set(self._classes_of(chosen)))),
            sample_ids=self._sample_ids[rows],
            labels=visible_labels(self._labels[rows], visible),
            places=rows,
        )

    def _warn_of_empty_shares(self) -> None:
        names = list(self.class_names_to_idx)
        empty = classes_with_empty_share(self._labels, self._rows_by_class)
        if scheduled := [names[index] for index in empty if index < len(names)]:
            warnings.warn(
                "classes show no sample of a combination of labels, for their share of its few "
                f"images rounds to 0: {', '.join(scheduled[:5])}"
                f"{f', … ({len(scheduled)} in all)' if len(scheduled) > 5 else ''}; "
                "raise superclass_data_pct or subclass_data_pct, or use more images",
                stacklevel=3,
            )

    def rows(self, task_ids: Iterable[int]) -> NDArray[np.int64]:
        """Return the rows (positions among the split's samples) that tasks show, ascending."""
        shown = np.zeros(len(self._sample_ids), dtype=bool)
        for index in self._classes_of(task_ids):
            for rows in self._rows_by_class.get(index, []):
                shown[rows] = True
        return np.flatnonzero(shown)

    def _classes_of(self, task_ids: Iterable[int]) -> list[int]:
        return [index for task in task_ids for index in self._classes[task]]


def visible_labels(labels: NDArray[np.int32], visible: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Hide labels, moving what stays to the front.

    Args:
        labels: int32 (N, 2), class indices, -1 for none.
        visible: bool (classes + 1,), whether a class's label shows; the last entry, for -1, is
            False.

    Returns:
        int32 (N, 2).
    """
    shown = np.where(visible[labels], labels, np.int32(NO_LABEL))
    only_second = shown[:, 0] == NO_LABEL
    shown[only_second] = shown[only_second][:, ::-1]
    return shown


def label_combinations(
    combinations: Iterable[Labels], class_names_to_idx: Mapping[str, int]
) -> NDArray[np.int32]:
    """Return label combinations as class indices.

    Args:
        combinations: ``(superclass, subclass)`` or ``(class,)`` each.
        class_names_to_idx: Indices of the scheduled classes; other classes get the indices after
            them.

    Returns:
        int32 (combinations, 2), -1 for no second label.
    """
    indices = dict(class_names_to_idx)
    rows: list[list[int]] = []
    for labels in combinations:
        row = [indices.setdefault(label, len(indices)) for label in labels]
        rows.append(row + [NO_LABEL] * (2 - len(row)))
    return np.array(rows, np.int32).reshape(-1, 2)
