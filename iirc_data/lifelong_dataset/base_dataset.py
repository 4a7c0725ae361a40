"""Published API: a stateful dataset that shows one task at a time, built on task views."""

import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from iirc_data.benchmarks import class_order
from iirc_data.decoding import read_image
from iirc_data.definitions import (
    IIRC_SETUP,
    NO_LABEL_PLACEHOLDER,
    DatasetStructType,
    Item,
    Labels,
)
from iirc_data.errors import BenchmarkError
from iirc_data.lifelong_dataset.arguments import checked_sampling, checked_setup, checked_tasks
from iirc_data.lifelong_dataset.samples import SampleLabels, Samples
from iirc_data.lifelong_dataset.state import STATE_VERSION, DatasetState
from iirc_data.task_sequence import TaskSequence

Transform = Callable[[Any], Any]


class BaseDataset(ABC):
    """A lifelong learning dataset: its content depends on the chosen task.

    A new dataset shows task 0. An index counts samples of the current task, in the order of
    ``dataset``, so the same index refers to different samples in different tasks.

    Sampling rounds down separately for each combination of labels. With 15 samples ``("A", "Aa")``
    and 15 samples ``("A", "Ab")``, ``superclass_data_pct=0.5`` shows 7 + 7 samples as ``"A"``, and
    ``subclass_data_pct=0.5`` shows 7 samples as ``"Aa"``. The published code does the same; the
    prose of its documentation says 15 and 8.

    Args:
        dataset: A sequence of ``(image, (label,))`` or ``(image, (superclass, …, subclass))``. The
            image is a Pillow image, or a path if ``using_image_path`` is set; labels are class
            names.
        tasks: Names of the classes that each task introduces.
        setup: ``IIRC_SETUP`` or ``CIL_SETUP``. ``CIL_SETUP`` shows every sample under its one
            label. As published, a sample with several labels counts in the task of each label that
            is scheduled, but reading such a sample is an error.
        using_image_path: ``dataset`` contains paths. An image is read, as RGB, on access.
        cache_images: Keep the images of the current task in memory after they are first read.
        essential_transforms_fn: Applied to an image if there is no ``augmentation_transforms_fn``,
            and inside :meth:`disable_augmentations`.
        augmentation_transforms_fn: Applied to an image in all other cases. It includes the
            essential transforms.
        test_mode: Show every sample under all its labels instead of sampling. This and the
            following arguments affect the IIRC setup only.
        complete_information_mode: Show all labels of the classes seen so far, not only those of
            the current task. Labels of classes not yet seen are always hidden. Defaults to
            ``test_mode``.
        superclass_data_pct: Share of each subclass's samples that are shown under its superclass
            unless ``test_mode`` is set, in [0, 1].
        subclass_data_pct: Share of a subclass's samples that are shown under the subclass, in
            [0, 1]. The two shares may overlap: samples in both are shown in both tasks.
        superclass_sampling_size_cap: Number of subclasses above which the size of a superclass
            stays constant: ``superclass_data_pct`` is then scaled by cap / subclasses.

    Attributes:
        dataset: The argument ``dataset``.
        tasks: The argument ``tasks``, as lists.
        n_tasks: Number of tasks.
        total_dataset_size: Number of samples in ``dataset``.
        cur_task: Names of the current classes: those of the chosen task, or of all tasks up to it
            (see :meth:`load_tasks_up_to`).
        cur_task_id: The last chosen task.
        cur_task_data_ids: Positions in ``dataset`` of the current samples, ascending.
        cached_images: Images kept by ``cache_images``, by position in ``dataset``.

    Raises:
        BenchmarkError: An argument is out of range, or ``dataset`` or ``tasks`` is malformed.
    """

    def __init__(
        self,
        dataset: DatasetStructType | Sequence[tuple[Any, Labels]],
        tasks: list[list[str]],
        setup: str = IIRC_SETUP,
        using_image_path: bool = False,
        cache_images: bool = False,
        essential_transforms_fn: Transform | None = None,
        augmentation_transforms_fn: Transform | None = None,
        test_mode: bool = False,
        complete_information_mode: bool | None = None,
        superclass_data_pct: float = 0.6,
        subclass_data_pct: float = 0.6,
        superclass_sampling_size_cap: int = 100,
    ) -> None:
        self.setup: str = checked_setup(setup)
        self.dataset: Sequence[tuple[Any, Labels]] = dataset
        self.tasks = checked_tasks(tasks)
        self.n_tasks = len(self.tasks)
        self.total_dataset_size = len(dataset)
        self.using_image_path = using_image_path
        self.cache_images = cache_images
        self.essential_transforms_fn = (
            self._default_transforms_fn()
            if essential_transforms_fn is None
            else essential_transforms_fn
        )
        self.augmentation_transforms_fn = augmentation_transforms_fn
        self._apply_augmentations = augmentation_transforms_fn is not None
        self.test_mode = test_mode
        self.complete_information_mode = (
            test_mode if complete_information_mode is None else complete_information_mode
        )
        self.superclass_data_pct = superclass_data_pct
        self.subclass_data_pct = subclass_data_pct
        self.superclass_sampling_size_cap = superclass_sampling_size_cap

        self._labels = dataset.labels if isinstance(dataset, Samples) else SampleLabels.of(dataset)
        self._sequence = self._make_sequence()
        self.cached_images: dict[int, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Return to the initial state: task 0 is chosen, and only its classes count as seen."""
        self._seen: frozenset[str] = frozenset()
        self._load([0])

    def choose_task(self, task_id: SupportsIndex) -> None:
        """Show the samples of one task, and mark its classes as seen.

        Classes stay seen: if an earlier task is chosen again, complete information still includes
        the labels of later tasks.

        Args:
            task_id: Number of the task.

        Raises:
            BenchmarkError: The task does not exist.
        """
        chosen = self._checked_task_id(task_id)
        self._warn_of_unusual_information_mode()
        self._load([chosen])

    def load_tasks_up_to(self, task_id: SupportsIndex) -> None:
        """Show the samples of tasks 0 to ``task_id`` together, and mark their classes as seen.

        Args:
            task_id: Number of the last task.

        Raises:
            BenchmarkError: The task does not exist, or the IIRC setup is in incomplete information
                mode, which defines labels for a single current task only.
        """
        last = self._checked_task_id(task_id)
        if self.setup == IIRC_SETUP and not self.complete_information_mode:
            raise BenchmarkError(
                "load_tasks_up_to needs complete information mode: call "
                "enable_complete_information_mode() first, or choose_task for a single task"
            )
        self._load(range(last + 1))

    @property
    def seen_classes(self) -> list[str]:
        """Names of the classes seen so far, in the order in which ``tasks`` introduces them."""
        return sorted(self._seen, key=self._sequence.class_names_to_idx.__getitem__)

    @cached_property
    def task_id_to_data_idx(self) -> dict[int, list[int]]:
        """Positions in ``dataset`` of each task's samples, ascending, by task number."""
        return {task: self._sequence.rows([task]).tolist() for task in range(self.n_tasks)}

    def __len__(self) -> int:
        return len(self._rows)

    def get_labels(self, index: SupportsIndex) -> Labels:
        """Return the labels of a sample of the current task.

        Args:
            index: Index within the current task.

        Returns:
            The visible labels, superclass first, then ``NO_LABEL_PLACEHOLDER`` for those that are
            hidden or do not exist: as many as any sample of the dataset has, at least two.

        Raises:
            IndexError: The index is out of range.
            BenchmarkError: The sample has several labels in the class-incremental setup.
        """
        return self._visible_labels(self._row(index))

    def get_item(self, index: SupportsIndex) -> Item:
        """Return a sample of the current task without any transform.

        Args:
            index: Index within the current task.

        Returns:
            The image, then its labels; see :meth:`get_labels`.

        Raises:
            IndexError: The index is out of range.
            BenchmarkError: The sample has several labels in the class-incremental setup.
            LoaderError: The image cannot be read.
        """
        row = self._row(index)
        labels = self._visible_labels(row)
        return self._image(row), *labels

    @abstractmethod
    def __getitem__(self, index: SupportsIndex) -> Item:
        """Return a sample of the current task: the transformed image, then its labels."""

    def get_image_indices_by_cla(
        self, cla: str, num_samples: int = -1, shuffle: bool = True
    ) -> NDArray[np.int64]:
        """Return the indices of a class's samples in the current task.

        The indices are valid until another task is chosen.

        Args:
            cla: Name of a class of the current task.
            num_samples: Maximum number of indices; -1 returns all.
            shuffle: Shuffle the indices with NumPy's global random generator, which
                ``np.random.seed`` makes reproducible. Defaults to True as in the published code;
                its documentation says False.

        Returns:
            int64 (n,); ascending unless shuffled.

        Raises:
            BenchmarkError: The class is not in the current task, or ``num_samples`` is below -1.
        """
        if cla not in self.cur_task:
            raise BenchmarkError(
                f"class {cla!r} is not in the current task {self.cur_task_id}, which has "
                f"{', '.join(self.cur_task[:10])}{', …' if len(self.cur_task) > 10 else ''}"
            )
        if num_samples < -1:
            raise BenchmarkError(f"num_samples is {num_samples}, expected -1 (all) or more")
        indices = np.flatnonzero(self._labels.having(cla)[self._labels.numbers[self._rows]])
        if shuffle:
            np.random.shuffle(indices)
        return indices if num_samples == -1 else indices[:num_samples]

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        """Context in which only the essential transforms are applied."""
        before = self._apply_augmentations
        self._apply_augmentations = False
        try:
            yield
        finally:
            self._apply_augmentations = before

    def enable_complete_information_mode(self) -> None:
        """Show all labels of the classes seen so far."""
        self.complete_information_mode = True

    def enable_incomplete_information_mode(self) -> None:
        """Show only labels of the current task's classes."""
        self.complete_information_mode = False

    def dataset_state_dict(self) -> dict[str, Any]:
        """Return the dataset's state: chosen tasks, seen classes and information mode.

        Returns:
            Plain values, which ``torch.load`` reads with ``weights_only=True``. Tasks and number of
            samples are included to identify the dataset; samples and transforms are not.
        """
        return self._state().model_dump()

    def load_dataset_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a dataset with the same samples and tasks.

        Args:
            state_dict: The result of :meth:`dataset_state_dict`.

        Raises:
            BenchmarkError: The state has another version, or belongs to other samples or tasks. The
                dataset is unchanged.
        """
        state = DatasetState.parse(state_dict)
        state.check_fits(self._state())
        task_ids = [self._checked_task_id(task_id) for task_id in state.task_ids]
        seen = frozenset(state.seen_classes)
        if unknown := seen - set(self._sequence.class_names_to_idx):
            raise BenchmarkError(
                f"the state's seen_classes contains unknown classes {sorted(unknown)}"
            )
        self.complete_information_mode = state.complete_information_mode
        self._seen = seen
        self._load(task_ids)

    def _state(self) -> DatasetState:
        return DatasetState(
            version=STATE_VERSION,
            tasks=self.tasks,
            total_dataset_size=self.total_dataset_size,
            task_ids=self._task_ids,
            seen_classes=self.seen_classes,
            complete_information_mode=bool(self.complete_information_mode),
        )

    def _default_transforms_fn(self) -> Transform | None:
        """Return the default of ``essential_transforms_fn``."""
        return None

    def _transformed_item(self, index: SupportsIndex) -> Item:
        image, *labels = self.get_item(index)
        transform = (
            self.augmentation_transforms_fn
            if self._apply_augmentations
            else self.essential_transforms_fn
        )
        return image if transform is None else transform(image), *labels

    def _make_sequence(self) -> TaskSequence:
        sampling = checked_sampling(
            self.superclass_data_pct, self.subclass_data_pct, self.superclass_sampling_size_cap
        )
        return TaskSequence(
            np.arange(len(self.dataset)),
            self._labels.class_indices(class_order(self.tasks)),
            self.tasks,
            setup=checked_setup(self.setup),
            sampling=None if self.test_mode else sampling,
            complete_information=self.complete_information_mode,
            ranks=None if self._labels.ranks is None else self._labels.ranks[self._labels.numbers],
        )

    def _checked_task_id(self, task_id: SupportsIndex) -> int:
        number = operator.index(task_id)
        if not 0 <= number < self.n_tasks:
            raise BenchmarkError(f"there is no task {number}: expected 0 to {self.n_tasks - 1}")
        return number

    def _warn_of_unusual_information_mode(self) -> None:
        if self.setup == IIRC_SETUP and self.test_mode != self.complete_information_mode:
            split = "test set" if self.test_mode else "train or validation set"
            warnings.warn(
                f"complete_information_mode is {self.complete_information_mode} for the current "
                f"{split}",
                stacklevel=3,
            )

    def _load(self, task_ids: Sequence[int]) -> None:
        self._task_ids = list(task_ids)
        self.cur_task_id = task_ids[-1]
        self.cur_task = [name for task in task_ids for name in self.tasks[task]]
        self._current = frozenset(self.cur_task)
        self._seen |= self._current
        self._rows = self._sequence.rows(task_ids)
        self.cur_task_data_ids: list[int] = self._rows.tolist()
        self.cached_images = {}

    def _row(self, index: SupportsIndex) -> int:
        return int(self._rows[operator.index(index)])

    def _image(self, row: int) -> Any:
        if row in self.cached_images:
            return self.cached_images[row]
        image = self.dataset[row][0]
        if self.using_image_path:
            image = read_image(image)
        if self.cache_images:
            self.cached_images[row] = image
        return image

    def _visible_labels(self, row: int) -> Labels:
        labels = self._labels[row]
        if self.setup == IIRC_SETUP:
            visible = self._seen if self.complete_information_mode else self._current
            labels = tuple(label for label in labels if label in visible)
        elif len(labels) > 1:
            raise BenchmarkError(
                f"sample {row} of the dataset has the labels {labels}, but the class-incremental "
                f"setup shows one: use setup=IIRC_SETUP ({IIRC_SETUP!r}), or give the sample one "
                "label"
            )
        return labels + (NO_LABEL_PLACEHOLDER,) * (self._labels.width - len(labels))
