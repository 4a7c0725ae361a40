"""The tasks of a benchmark's split, from which task views are made."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import Benchmark, SamplingSettings, class_order
from iirc_data.dataset_checks import check_classes_of_parts
from iirc_data.datasets import parts_of
from iirc_data.definitions import (
    CIL_SETUP,
    INTASK_VALID,
    NO_LABEL,
    POSTTASK_VALID,
    TEST,
    TRAIN,
    Setup,
    SplitName,
)
from iirc_data.errors import BenchmarkError
from iirc_data.label_combinations import (
    distinct_combinations,
    label_combinations,
    label_ranks,
    ranks_in_order,
    visible_labels,
)
from iirc_data.runs import Runs, ranges
from iirc_data.sampling import classes_with_empty_share, sample_shares, shown_by_class
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.sample_store import SampleStore
from iirc_data.shards.table import SampleTable
from iirc_data.spelling import first_of
from iirc_data.split_samples import samples_of_split
from iirc_data.splits import in_published_order
from iirc_data.task_view import TaskView
from iirc_data.taxonomy import Taxonomy
from iirc_data.warning import warn

_SPLITS = {TRAIN: "training", INTASK_VALID: "in-task validation (not training)", None: "the data"}


class TaskSequence:
    """The tasks of one split, from which views are made.

    Args:
        sample_ids: int64 (N,), ids of the split's samples, in the order that sampling uses; or the
            same as R :class:`~iirc_data.runs.Runs` of samples that have equal labels.
        labels: int32 (N, L), or (R, L) for runs: class indices of each sample's full label
            combination: superclasses and leaf class, -1 for none. Indices from
            ``len(class_names)`` on are those of classes that are not scheduled.
        tasks: The names of each task's classes, those that it introduces and those that reappear.
        setup: ``"IIRC"`` or ``"CIL"``. The latter does not sample: a sample with several labels
            belongs to the tasks of all of them, as published.
        sampling: Fractions for superclasses and subclasses; None shows every sample (test mode).
        complete_information: Show all labels seen so far, not only those of the current task.
        sources: int32 (N,) or (R,), number of the class that each sample has in its dataset; None
            if every combination has one. The samples of each are divided on their own: otherwise
            superclass and subclass would show images of different datasets.
        ranks: int32 (N, L) or (R, L), the rank of each label in its combination, from the top: 0,
            1, …; see :func:`~iirc_data.sampling.sample_shares`. None if no two labels of a
            combination have the same.
        taxonomy: The classes and their superclasses; None if each label of a combination is a
            superclass of the next.
        split: The split, for warnings; None if it has no name.
    """

    def __init__(
        self,
        sample_ids: NDArray[np.int64] | Runs,
        labels: NDArray[np.int32],
        tasks: Sequence[Sequence[str]],
        *,
        setup: Setup,
        sampling: SamplingSettings | None,
        complete_information: bool,
        sources: NDArray[np.int32] | None = None,
        ranks: NDArray[np.int32] | None = None,
        taxonomy: Taxonomy | None = None,
        split: SplitName | None = None,
    ) -> None:
        self.tasks = [list(task) for task in tasks]
        self.class_names_to_idx = class_order(self.tasks)
        self.complete_information = complete_information
        self._setup = setup
        self._taxonomy = taxonomy
        self._split = split
        first, groups = distinct_combinations(labels, sources)
        self._labels = labels[first]
        self._ranks = ranks_in_order(self._labels) if ranks is None else ranks[first]
        self._runs = (
            sample_ids.in_groups(groups)
            if isinstance(sample_ids, Runs)
            else Runs.of(sample_ids, groups)
        )
        ends = np.cumsum(self._runs.lengths)
        self._positions = Runs(ends - self._runs.lengths, self._runs.lengths, self._runs.groups)
        sampling = None if setup == CIL_SETUP else sampling
        sizes = self._runs.sizes_of(len(self._labels))
        shares = sample_shares(self._labels, self._ranks, sizes, sampling)
        self._shown = shown_by_class(self._positions, self._labels, self._ranks, shares)
        self._classes = [[self.class_names_to_idx[name] for name in task] for task in self.tasks]
        self._warn_of_empty_shares(classes_with_empty_share(self._labels, shares))
        self._n_labels = max(
            len(self.class_names_to_idx), int(self._labels.max(initial=NO_LABEL)) + 1
        )

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
            manifest: Manifest of the dataset.
            table: Sample table of the dataset.
            split: ``"train"``, ``"intask_valid"``, ``"posttask_valid"`` or ``"test"``. Post-task
                validation and test show every sample.
            schedule: Number of the benchmark's schedule.
            joint: Put all classes into one task.
            complete_information: Show all labels seen so far; by default True for the splits that
                show every sample.
            samples_per_class: Use only the first ``samples_per_class`` images of each leaf class in
                the split (for quick experiments).

        Raises:
            BenchmarkError: The dataset lacks classes or a split of the benchmark.
        """
        return cls._of(
            benchmark,
            {manifest.dataset: (manifest, table)},
            split,
            schedule=schedule,
            joint=joint,
            complete_information=complete_information,
            samples_per_class=samples_per_class,
        )

    @classmethod
    def from_store(
        cls,
        benchmark: Benchmark,
        store: SampleStore,
        split: SplitName,
        *,
        schedule: int = 0,
        joint: bool = False,
        complete_information: bool | None = None,
        samples_per_class: int | None = None,
    ) -> Self:
        """Make the tasks of one split of the data of a benchmark, in one dataset or several.

        Each class of each dataset is divided into training and validation on its own, and so is
        ``samples_per_class`` counted.

        Args:
            benchmark: The benchmark.
            store: Its data, see :func:`iirc_data.datasets.open_datasets`.
            split: See :meth:`from_table`.
            schedule: See :meth:`from_table`.
            joint: See :meth:`from_table`.
            complete_information: See :meth:`from_table`.
            samples_per_class: See :meth:`from_table`.

        Raises:
            BenchmarkError: A dataset is missing, or lacks classes or a split of the benchmark.
        """
        return cls._of(
            benchmark,
            {name: (part.manifest, part.table) for name, part in store.datasets.items()},
            split,
            schedule=schedule,
            joint=joint,
            complete_information=complete_information,
            samples_per_class=samples_per_class,
        )

    @classmethod
    def _of(
        cls,
        benchmark: Benchmark,
        datasets: Mapping[str, tuple[Manifest, SampleTable]],
        split: SplitName,
        *,
        schedule: int,
        joint: bool,
        complete_information: bool | None,
        samples_per_class: int | None,
    ) -> Self:
        test_mode = split in (TEST, POSTTASK_VALID)
        tasks = benchmark.tasks(schedule, joint=joint)
        parts = parts_of(benchmark, {name: manifest for name, (manifest, _) in datasets.items()})
        check_classes_of_parts(benchmark, parts, tasks)
        tables = [table for _, table in datasets.values()]
        samples = samples_of_split(parts, tables, split, samples_per_class)
        order = in_published_order(benchmark, samples.classes, samples.runs.groups)
        taxonomy = benchmark.taxonomy
        labels = label_combinations(map(taxonomy.labels_of, samples.classes), class_order(tasks))
        ranks = label_ranks(taxonomy, samples.classes)
        runs = samples.runs.take(order)
        return cls(
            runs,
            labels[runs.groups],
            tasks,
            setup=benchmark.setup,
            sampling=None if test_mode else benchmark.sampling,
            complete_information=test_mode
            if complete_information is None
            else complete_information,
            sources=None if samples.sources is None else samples.sources[order],
            ranks=None if ranks is None else ranks[runs.groups],
            taxonomy=taxonomy,
            split=split,
        )

    def __len__(self) -> int:
        return len(self.tasks)

    @cached_property
    def ancestors(self) -> NDArray[np.bool_] | None:
        """Whether the class of a column is that of the row or one of its ancestors.

        bool (classes, classes); None if no class has a superclass among the classes.
        """
        if self._setup == CIL_SETUP:
            return None
        n = len(self.class_names_to_idx)
        relation = np.eye(n, dtype=bool)
        if self._taxonomy is None:
            for upper, lower in combinations(range(self._labels.shape[1]), 2):
                pairs = self._labels[:, [upper, lower]]
                pairs = pairs[(pairs != NO_LABEL).all(axis=1) & (pairs < n).all(axis=1)]
                relation[pairs[:, 1], pairs[:, 0]] = True
        else:
            for name, index in self.class_names_to_idx.items():
                for ancestor in self._taxonomy.ancestors_of(name):
                    if ancestor in self.class_names_to_idx:
                        relation[index, self.class_names_to_idx[ancestor]] = True
        return relation if relation.sum() > n else None

    def view(self, task_ids: int | Iterable[int], seen_up_to: int | None = None) -> TaskView:
        """Return the view of one task, or of several together.

        With incomplete information a sample shows those of its labels that belong to the given
        tasks; with complete information, those that belong to the tasks 0 to ``seen_up_to``.

        Args:
            task_ids: The task, or several.
            seen_up_to: Latest task seen so far; by default the latest of ``task_ids``.

        Raises:
            BenchmarkError: A task does not exist, or ``seen_up_to`` is before a given task.
        """
        chosen = (task_ids,) if isinstance(task_ids, int) else tuple(task_ids)
        latest = max(chosen, default=-1)
        seen_up_to = latest if seen_up_to is None else seen_up_to
        if not chosen or min(chosen) < 0 or not latest <= seen_up_to < len(self.tasks):
            raise BenchmarkError(
                f"tasks {chosen} seen up to {seen_up_to}: expected tasks among 0 to "
                f"{len(self.tasks) - 1}, none of them after the latest seen task"
            )
        visible = np.zeros(self._n_labels + 1, dtype=bool)  # the last entry is for "no label"
        seen = range(seen_up_to + 1)
        visible[self._classes_of(seen if self.complete_information else chosen)] = True
        positions = self._shown_by(chosen)
        of_run = np.searchsorted(self._positions.starts, positions.starts, side="right") - 1
        steps = self._runs.starts[of_run] - self._positions.starts[of_run]
        by_id = np.argsort(positions.starts + steps)
        positions, of_run = positions.take(by_id), of_run[by_id]
        labels = visible_labels(self._labels, visible)[self._runs.groups[of_run]]
        return TaskView(
            class_names=tuple(self.class_names_to_idx),
            task_ids=chosen,
            seen_up_to=seen_up_to,
            n_seen_classes=len(set(self._classes_of(seen))),
            task_classes=tuple(sorted(set(self._classes_of(chosen)))),
            sample_ids=ranges(positions.starts + steps[by_id], positions.lengths),
            labels=np.repeat(labels, positions.lengths, axis=0),
            places=positions.numbers(),
        )

    def _warn_of_empty_shares(self, empty: Sequence[int]) -> None:
        names = list(self.class_names_to_idx)
        if scheduled := [names[index] for index in empty if index < len(names)]:
            warn(
                f"{_SPLITS[self._split]} has too few images: of some label "
                f"combination, the fraction to show rounds to 0 for {first_of(scheduled)}; use "
                "more images, or raise superclass_data_pct or subclass_data_pct",
            )

    def rows(self, task_ids: Iterable[int]) -> NDArray[np.int64]:
        """Return the positions among the split's samples of those that tasks show, ascending."""
        return self._shown_by(task_ids).numbers()

    def _shown_by(self, task_ids: Iterable[int]) -> Runs:
        """Return the positions of :meth:`rows`, each run of them within one run of samples."""
        wanted = np.zeros(self._n_labels, dtype=bool)
        wanted[self._classes_of(task_ids)] = True
        return self._shown.take(wanted[self._shown.groups]).ascending()

    def _classes_of(self, task_ids: Iterable[int]) -> list[int]:
        return [index for task in task_ids for index in self._classes[task]]
