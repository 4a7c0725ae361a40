"""A dataset of which one task at a time is shown: the published, stateful API over task views."""

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
    Labels,
)
from iirc_data.errors import BenchmarkError
from iirc_data.lifelong_dataset.arguments import checked_sampling, checked_setup, checked_tasks
from iirc_data.lifelong_dataset.samples import SampleLabels, Samples
from iirc_data.lifelong_dataset.state import STATE_VERSION, DatasetState
from iirc_data.task_view import TaskSequence

Transform = Callable[[Any], Any]
Item = tuple[Any, str, str]


class BaseDataset(ABC):
    """A lifelong learning dataset, whose content changes with the task that is chosen.

    After construction task 0 is chosen. Indices count the current task's samples, in the order
    of ``dataset``: index 0 is another sample when another task is chosen.

    Sampling rounds down, for each combination of labels apart: of 15 samples ``("A", "Aa")`` and
    15 samples ``("A", "Ab")``, ``superclass_data_pct=0.5`` shows 7 and 7 under ``"A"`` and
    ``subclass_data_pct=0.5`` shows 7 under ``"Aa"``, as the published code does (the prose of
    its documentation says 15 and 8).

    Args:
        dataset: A list of ``(image, (label,))`` or ``(image, (superclass, subclass))``; the image
            is a Pillow image, or a path (see ``using_image_path``), the labels are class names.
            Any sequence of such pairs will do.
        tasks: For each task the names of the classes that it introduces.
        setup: ``IIRC_SETUP`` or ``CIL_SETUP``. The latter shows every sample, under its one label.
            A sample with two labels counts in the task of each of them that is scheduled, as
            published, but has no labels: asking for it is an error.
        using_image_path: ``dataset`` holds paths, and an image is read (as RGB) when asked for.
        cache_images: Keep the current task's images in memory once they were read; of use where
            reading one takes time.
        essential_transforms_fn: Applied to an image where no ``augmentation_transforms_fn`` is
            given, and inside :meth:`disable_augmentations`.
        augmentation_transforms_fn: Applied to an image everywhere else. It has to do the
            essential transforms too.
        test_mode: Show every sample under all its labels, instead of sampling. Of use in the
            IIRC setup only, as are the following.
        complete_information_mode: Give all labels of the classes seen so far, not only those of
            the current task. No label of a class that is not yet seen is ever given. By default
            as ``test_mode``.
        superclass_data_pct: Share of each subclass's samples shown under its superclass when not
            in ``test_mode``, 0 to 1.
        subclass_data_pct: Share of a subclass's samples shown under the subclass, 0 to 1. The
            shares need not sum to 1: what lies in both is shown in both tasks.
        superclass_sampling_size_cap: Number of subclasses after which a superclass shows no more
            samples: beyond it, ``superclass_data_pct`` is scaled by cap / subclasses.

    Attributes:
        dataset: As given.
        tasks: As given.
        n_tasks: Number of tasks.
        total_dataset_size: Number of samples of ``dataset``.
        cur_task: Names of the current classes: of the task that was chosen, or of all up to it
            (see :meth:`load_tasks_up_to`).
        cur_task_id: The task that was chosen last.
        cur_task_data_ids: Positions in ``dataset`` of the current samples, ascending.
        cached_images: The images that ``cache_images`` keeps, by position in ``dataset``.

    Raises:
        BenchmarkError: An argument is out of its range, or ``dataset`` or ``tasks`` is malformed.
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
        """Go back to the start: task 0 is chosen, and only its classes count as seen."""
        self._seen: frozenset[str] = frozenset()
        self._load([0])

    def choose_task(self, task_id: SupportsIndex) -> None:
        """Show the samples of one task, and count its classes as seen.

        Classes that were seen stay so: when an earlier task is chosen again, complete
        information still gives the labels of all that was seen.

        Args:
            task_id: The task.

        Raises:
            BenchmarkError: There is no such task.
        """
        chosen = self._checked_task_id(task_id)
        self._warn_of_unusual_information_mode()
        self._load([chosen])

    def load_tasks_up_to(self, task_id: SupportsIndex) -> None:
        """Show the samples of task 0 to ``task_id`` together, and count their classes as seen.

        Args:
            task_id: The last of the tasks.

        Raises:
            BenchmarkError: There is no such task, or the IIRC setup is in incomplete information
                mode: the samples of several tasks have no labels of "the current task" there.
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
        """Names of the classes of all tasks chosen so far, in the order of ``tasks``."""
        return sorted(self._seen, key=self._sequence.class_names_to_idx.__getitem__)

    @cached_property
    def task_id_to_data_idx(self) -> dict[int, list[int]]:
        """For each task the positions in ``dataset`` of its samples, ascending."""
        return {task: self._sequence.rows([task]).tolist() for task in range(self.n_tasks)}

    def __len__(self) -> int:
        return len(self._rows)

    def get_labels(self, index: SupportsIndex) -> tuple[str, str]:
        """Return the labels of one of the current samples.

        Args:
            index: Number of the sample within the current task.

        Returns:
            The labels that are visible now, superclass first; ``NO_LABEL_PLACEHOLDER`` stands for
            a second label that is not visible or does not exist.

        Raises:
            IndexError: There is no such sample.
            BenchmarkError: The sample has two labels in the class-incremental setup.
        """
        return self._visible_labels(self._row(index))

    def get_item(self, index: SupportsIndex) -> Item:
        """Return one of the current samples without any transform.

        Args:
            index: Number of the sample within the current task.

        Returns:
            The image, and its labels as of :meth:`get_labels`.

        Raises:
            IndexError: There is no such sample.
            BenchmarkError: The sample has two labels in the class-incremental setup.
            LoaderError: The image cannot be read.
        """
        row = self._row(index)
        labels = self._visible_labels(row)
        return self._image(row), *labels

    @abstractmethod
    def __getitem__(self, index: SupportsIndex) -> Item:
        """Return one of the current samples, transformed, and its labels."""

    def get_image_indices_by_cla(
        self, cla: str, num_samples: int = -1, shuffle: bool = True
    ) -> NDArray[np.int64]:
        """Return which of the current samples belong to a class.

        The indices count the current task's samples: when another task is chosen, they stand for
        other samples.

        Args:
            cla: Name of a class of the current task.
            num_samples: At most so many; -1 for all.
            shuffle: Shuffle them, with numpy's global random generator (``np.random.seed`` makes
                the order reproducible). The default is True, as in the published code (its
                documentation says False).

        Returns:
            int64 (n,), ascending where not shuffled.

        Raises:
            BenchmarkError: The class is not in the current task.
        """
        if cla not in self.cur_task:
            raise BenchmarkError(
                f"class {cla!r} is not in the current task {self.cur_task_id}, which has "
                f"{', '.join(self.cur_task[:10])}{', …' if len(self.cur_task) > 10 else ''}"
            )
        if num_samples < -1:
            raise BenchmarkError(f"num_samples is {num_samples}, expected -1 (all) or a number")
        indices = np.flatnonzero(self._labels.having(cla)[self._labels.numbers[self._rows]])
        if shuffle:
            np.random.shuffle(indices)
        return indices if num_samples == -1 else indices[:num_samples]

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        """Apply only the essential transforms inside the context."""
        before = self._apply_augmentations
        self._apply_augmentations = False
        try:
            yield
        finally:
            self._apply_augmentations = before

    def enable_complete_information_mode(self) -> None:
        """Give all labels of the classes seen so far, from now on."""
        self.complete_information_mode = True

    def enable_incomplete_information_mode(self) -> None:
        """Give only labels of the current task's classes, from now on."""
        self.complete_information_mode = False

    def dataset_state_dict(self) -> dict[str, Any]:
        """Return what has happened to the dataset since it was made.

        Returns:
            Plain values (``torch.load`` with ``weights_only=True`` reads them): which task is
            chosen, which classes were seen, the information mode; and what tells a dataset that
            it fits. Samples and transforms are not in it.
        """
        return self._state().model_dump()

    def load_dataset_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from where another dataset over the same samples and tasks was.

        Args:
            state_dict: As :meth:`dataset_state_dict` returned it.

        Raises:
            BenchmarkError: The state is of another version, or of other samples or tasks; the
                dataset is left as it was.
        """
        state = DatasetState.parse(state_dict)
        state.check_fits(self._state())
        task_ids = [self._checked_task_id(task_id) for task_id in state.task_ids]
        seen = frozenset(state.seen_classes)
        if unknown := seen - set(self._sequence.class_names_to_idx):
            raise BenchmarkError(f"the state's seen_classes has unknown classes {sorted(unknown)}")
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
        """Return what ``essential_transforms_fn`` is where none is given."""
        return None

    def _transformed_item(self, index: SupportsIndex) -> Item:
        image, label_1, label_2 = self.get_item(index)
        transform = (
            self.augmentation_transforms_fn
            if self._apply_augmentations
            else self.essential_transforms_fn
        )
        return image if transform is None else transform(image), label_1, label_2

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

    def _visible_labels(self, row: int) -> tuple[str, str]:
        labels = self._labels[row]
        if self.setup == IIRC_SETUP:
            visible = self._seen if self.complete_information_mode else self._current
            labels = tuple(label for label in labels if label in visible)
        elif len(labels) > 1:
            raise BenchmarkError(
                f"sample {row} of the dataset has two labels, {labels}, but the class-incremental "
                f"setup gives one: use setup=IIRC_SETUP ({IIRC_SETUP!r}), or give the sample one "
                "label"
            )
        first, second = labels if len(labels) == 2 else (labels[0], NO_LABEL_PLACEHOLDER)
        return first, second
