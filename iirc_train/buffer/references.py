"""Memories as references: sample ids, with the labels visible when each was chosen."""

import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import FEWEST_LABELS, NO_LABEL
from iirc_data.label_combinations import most_specific, with_width
from iirc_data.shards.sample_store import SampleStore


class References:
    """References to samples, one per slot; the filled slots are the first ones.

    Attributes:
        sample_ids: int64 (slots,), rows of the sample table; -1 in an empty slot.
        labels: int32 (slots, L), class indices of the labels visible when the sample was chosen,
            -1 for none.
        tasks: int64 (slots,), number of the task during which it was chosen.
    """

    def __init__(self, n_slots: int) -> None:
        self.sample_ids = np.full(n_slots, -1, np.int64)
        self.labels = np.full((n_slots, FEWEST_LABELS), NO_LABEL, np.int32)
        self.tasks = np.full(n_slots, -1, np.int64)

    def __len__(self) -> int:
        """Return the number of filled slots."""
        return int((self.sample_ids >= 0).sum())

    def put(
        self,
        slots: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        labels: NDArray[np.int32],
        tasks: NDArray[np.int64] | int,
    ) -> None:
        """Put references into slots, int64 (N,), in place of those that were there."""
        self.sample_ids[slots] = sample_ids
        self.labels = with_width(self.labels, labels.shape[1])
        self.labels[slots] = with_width(labels, self.labels.shape[1])
        self.tasks[slots] = tasks

    @property
    def classes(self) -> NDArray[np.int64]:
        """int64 (filled slots,): index of each memory's class, the most specific of its labels."""
        return most_specific(self.labels[: len(self)])


class ReferencedSamples:
    """The samples that references refer to, for a loader.

    It implements :class:`iirc_data.loader.ReplaySource`, and with several datasets
    :class:`iirc_data.loader.KnowsDatasets`.

    Args:
        sample_ids: int64 (N,), rows of the sample table.
        labels: int32 (N, L), class indices, -1 for none.
        store: The shards that hold the samples.
    """

    def __init__(
        self, sample_ids: NDArray[np.int64], labels: NDArray[np.int32], store: SampleStore
    ) -> None:
        self.sample_ids = sample_ids
        self.labels = labels
        self.heights, self.widths = store.sizes(sample_ids).T
        self.datasets = store.dataset_numbers(sample_ids)
        self._store = store

    def __len__(self) -> int:
        return len(self.sample_ids)

    def subset(self, slots: NDArray[np.int64]) -> Self:
        """Return some of the samples, int64 (M,), in the given order."""
        chosen = copy.copy(self)
        chosen.sample_ids, chosen.labels = self.sample_ids[slots], self.labels[slots]
        chosen.heights, chosen.widths = self.heights[slots], self.widths[slots]
        chosen.datasets = self.datasets[slots]
        return chosen

    def read(self, slot: int) -> NDArray[np.uint8]:
        """Return the encoded image of a memory, uint8 (bytes,)."""
        return self._store.read(int(self.sample_ids[slot]))

    def name(self, slot: int) -> str:
        """Return a memory's name for error messages."""
        return self._store.name(int(self.sample_ids[slot]))
