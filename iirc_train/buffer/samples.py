"""Protocols for a task's data and for memories: the attributes of the published dataset and buffer.

Any dataset with the attributes of :class:`TaskSamples` works. :class:`DecodesBatches` and
:class:`HoldsEncoded` are optional and make reading faster; the datasets of a run implement them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import Item, Labels
from iirc_data.loader import Batch
from iirc_data.task_view import TaskView


class Samples(Protocol):
    """A dataset of images with labels."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Item:
        """Return a transformed image and its labels, ``NO_LABEL_PLACEHOLDER`` for none."""

    def disable_augmentations(self) -> AbstractContextManager[None]:
        """Return a context in which images are transformed as for evaluation."""


class TaskSamples(Samples, Protocol):
    """The samples of one task."""

    @property
    def cur_task_id(self) -> int:
        """Number of the task."""

    @property
    def cur_task(self) -> Sequence[str]:
        """Names of the classes that the task introduces."""

    def get_image_indices_by_cla(
        self, cla: str, /, num_samples: int = -1, shuffle: bool = True
    ) -> NDArray[np.int64]:
        """Return the indices of at most ``num_samples`` samples of a class; -1 for all."""


class Memories(Samples, Protocol):
    """The memories of a replay buffer."""

    @property
    def n_memories_per_class(self) -> Mapping[str, int]:
        """Number of memories of each class, in the order of arrival."""

    def get_image_indices_by_class(self, class_name: str, /) -> NDArray[np.int64]:
        """Return the indices of a class's memories, most important first."""


@runtime_checkable
class DecodesBatches(Protocol):
    """A dataset that decodes batches of samples on the training device."""

    def loader(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Iterate over batches of the given samples, in the given order."""


@runtime_checkable
class HoldsEncoded(Protocol):
    """A dataset with encoded images, which a buffer can keep unchanged."""

    def encoded(self, index: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return an encoded image (RGB or grayscale), and its height and width in pixels."""

    def get_labels(self, index: int) -> Labels:
        """Return the visible labels of a sample, ``NO_LABEL_PLACEHOLDER`` for none."""


@runtime_checkable
class HoldsImages(Protocol):
    """A dataset with untransformed images, which a buffer encodes."""

    def get_item(self, index: int) -> Item:
        """Return the untransformed Pillow image of a sample, and its labels."""


@runtime_checkable
class HasView(Protocol):
    """A dataset that shows a task view, to which a buffer can refer."""

    view: TaskView


@runtime_checkable
class KnowsDataset(Protocol):
    """A dataset whose samples are from several datasets, which a buffer keeps track of."""

    def dataset_number(self, index: int) -> int:
        """Return the number of the dataset that a sample is from."""
