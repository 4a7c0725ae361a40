"""A snapshot of a buffer's memories, for a loader."""

import copy
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import FEWEST_LABELS, NO_LABEL
from iirc_data.label_combinations import joined_labels
from iirc_train.buffer.class_arrays import ClassMemories
from iirc_train.buffer.slots import Slots


class ReplaySnapshot:
    """A snapshot of a buffer's memories, for a loader; the buffer can change afterwards.

    It implements :class:`iirc_data.loader.ReplaySource`, and with several datasets
    :class:`iirc_data.loader.KnowsDatasets`.

    Args:
        classes: Name of each class, its stored memories, and how many of them the buffer uses.
        class_names_to_idx: Index of each class.
    """

    def __init__(
        self,
        classes: list[tuple[str, ClassMemories, int]],
        class_names_to_idx: Mapping[str, int],
    ) -> None:
        self._classes = {name: memories for name, memories, _ in classes}
        self._all_slots = Slots({name: count for name, _, count in classes})
        labels = [np.empty((0, FEWEST_LABELS), np.int32)]
        sizes = [np.empty((0, 2), np.int32)]
        datasets = [np.empty(0, np.int64)]
        for _, memories, count in classes:
            indices = [class_names_to_idx[name] for name in memories.label_names]
            to_index = np.array([*indices, NO_LABEL], np.int32)
            labels.append(to_index[memories.labels[:count]])
            sizes.append(memories.sizes[:count])
            datasets.append(memories.datasets[:count])
        self._chosen = np.arange(len(self._all_slots))
        self.labels = joined_labels(labels)
        self.heights, self.widths = np.concatenate(sizes).T
        self.datasets = np.concatenate(datasets)

    def __len__(self) -> int:
        return len(self._chosen)

    def subset(self, slots: NDArray[np.int64]) -> Self:
        """Return a snapshot of the memories in the given slots, int64 (M,), in the given order."""
        chosen = copy.copy(self)
        chosen._chosen = self._chosen[slots]
        chosen.labels = self.labels[slots]
        chosen.heights, chosen.widths = self.heights[slots], self.widths[slots]
        chosen.datasets = self.datasets[slots]
        return chosen

    def read(self, slot: int) -> NDArray[np.uint8]:
        """Return the encoded image of a memory, uint8 (bytes,)."""
        class_name, number = self._locate(slot)
        return self._classes[class_name].encoded(number)

    def name(self, slot: int) -> str:
        """Return a memory's name for error messages."""
        class_name, number = self._locate(slot)
        return f"replay buffer:{class_name}/{number}"

    def _locate(self, slot: int) -> tuple[str, int]:
        return self._all_slots.locate(int(self._chosen[slot]))
