"""The memories of a buffer at one moment, as a loader reads them."""

import copy
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import NO_LABEL
from iirc_train.buffer.store import ClassMemories


class ReplaySnapshot:
    """The memories of a buffer at one moment, as a loader reads them.

    See :class:`iirc_data.loader.ReplaySource`.

    Args:
        classes: Class name, its memories, and how many of them count.
        class_names_to_idx: Index of each class.
    """

    def __init__(
        self,
        classes: list[tuple[str, ClassMemories, int]],
        class_names_to_idx: Mapping[str, int],
    ) -> None:
        self._classes = classes
        self._ends = np.cumsum([0, *(count for _, _, count in classes)])
        labels, sizes = [np.empty((0, 2), np.int32)], [np.empty((0, 2), np.int32)]
        for _, memories, count in classes:
            indices = [class_names_to_idx[name] for name in memories.label_names]
            to_index = np.array([*indices, NO_LABEL], np.int32)
            labels.append(to_index[memories.labels[:count]])
            sizes.append(memories.sizes[:count])
        self._slots = np.arange(self._ends[-1])
        self.labels = np.concatenate(labels)
        self.heights, self.widths = np.concatenate(sizes).T

    def __len__(self) -> int:
        return len(self._slots)

    def subset(self, slots: NDArray[np.int64]) -> Self:
        """Return some of the memories, int64 (M,), in that order."""
        chosen = copy.copy(self)
        chosen._slots = self._slots[slots]
        chosen.labels = self.labels[slots]
        chosen.heights, chosen.widths = self.heights[slots], self.widths[slots]
        return chosen

    def read(self, slot: int) -> NDArray[np.uint8]:
        """Return one memory's encoded image, uint8 (bytes,)."""
        _, memories, number = self._locate(slot)
        return memories.encoded(number)

    def name(self, slot: int) -> str:
        """Return what to call a memory in an error."""
        class_name, _, number = self._locate(slot)
        return f"replay buffer:{class_name}/{number}"

    def _locate(self, slot: int) -> tuple[str, ClassMemories, int]:
        slot = int(self._slots[slot])
        block = int(np.searchsorted(self._ends, slot, side="right")) - 1
        class_name, memories, _ = self._classes[block]
        return class_name, memories, slot - int(self._ends[block])
