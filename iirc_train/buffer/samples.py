"""What methods and buffers need of a task's data and of memories: the published attributes.

Any dataset with these attributes serves. One that also has those of :class:`DecodesBatches` or
:class:`HoldsEncoded`, as the datasets of a run have, is read faster.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from iirc_data.loader import Batch


class Samples(Protocol):
    """Images with their labels, by index."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> tuple[Any, str, str]:
        """Return an image, transformed, and its labels; ``NO_LABEL_PLACEHOLDER`` for none."""

    def disable_augmentations(self) -> AbstractContextManager[None]:
        """Return a context in which images come as for evaluation."""


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
        """Return the indices of a class's samples, at most ``num_samples`` of them; -1 for all."""


class Memories(Samples, Protocol):
    """The memories of a replay buffer."""

    @property
    def n_memories_per_class(self) -> Mapping[str, int]:
        """Number of memories of each class, in the order in which classes came."""

    def get_image_indices_by_class(self, class_name: str, /) -> NDArray[np.int64]:
        """Return the indices of a class's memories, most important first."""


@runtime_checkable
class DecodesBatches(Protocol):
    """Samples that come decoded in batches, on the training device."""

    def loader(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Iterate over some samples in the given order."""


@runtime_checkable
class HoldsEncoded(Protocol):
    """Samples whose encoded images a buffer can keep as they are."""

    def encoded(self, index: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return an encoded image, RGB or grayscale, and its height and width."""

    def get_labels(self, index: int) -> tuple[str, str]:
        """Return a sample's visible labels, ``NO_LABEL_PLACEHOLDER`` for none."""


@runtime_checkable
class HoldsImages(Protocol):
    """Samples whose images come untransformed, to be encoded by the buffer."""

    def get_item(self, index: int) -> tuple[Any, str, str]:
        """Return an image as it is stored, a Pillow image, and its labels."""
