"""Buffers whose memories are references to samples, with columns."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.decoding import decode
from iirc_data.definitions import Item
from iirc_data.errors import BufferStorageError, ConfigurationError
from iirc_data.label_combinations import names_of_labels
from iirc_data.shards.sample_store import SampleStore
from iirc_train.buffer.base import BufferBase
from iirc_train.buffer.class_arrays import Memory
from iirc_train.buffer.columns import Column, ColumnTables
from iirc_train.buffer.reference_store import Generation, ReferenceStore, Segment
from iirc_train.buffer.references import ReferencedSamples, References
from iirc_train.buffer.samples import TaskSamples
from iirc_train.buffer.store import BufferStore
from iirc_train.runtime.distributed import of_first_process, rank


class ReferenceBuffer(BufferBase):
    """Keeps references to samples, whose images stay where they are.

    It has ``total_n_mems`` places, or ``n_memories_per_class`` for each class of the benchmark. A
    memory belongs to the most specific of the labels that were visible when it was chosen; it is
    replayed with these labels.

    Attributes:
        references: The memories by slot.
        columns: What is kept for each memory beside its image.
        n_seen: Number of samples that the buffer was offered.
    """

    Store: ClassVar[type[BufferStore]] = ReferenceStore
    store: ReferenceStore
    has_pool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_seen = 0
        self._segments: dict[int, int] = {}
        self._samples: SampleStore | None = None
        self._indices: dict[str, int] = {}
        self._names: list[str] = []
        self._declared: Sequence[Column] = ()
        self.seed = 0
        self._empty()

    def connect(
        self,
        samples: SampleStore,
        class_names_to_idx: Mapping[str, int],
        *,
        seed: int = 0,
        columns: Sequence[Column] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """Connect the empty buffer with a run; see :meth:`BufferBase.connect`."""
        self._samples, self._indices = samples, dict(class_names_to_idx)
        self._names = sorted(self._indices, key=self._indices.__getitem__)
        self._declared, self._device, self.seed = columns, torch.device(device), seed
        self._empty()

    @property
    def n_slots(self) -> int:
        """Number of places."""
        if self.config.n_memories_per_class >= 0:
            return self.config.n_memories_per_class * len(self._indices)
        return self.config.total_n_mems

    def _empty(self) -> None:
        self.n_seen = self._committed_n_seen = 0
        self.references = References(self.n_slots)
        self.columns = ColumnTables(self._declared, self.n_slots, self._device)
        self._changed = np.zeros(self.n_slots, np.bool_)
        self._segments = {}
        self._count()

    def _put(
        self,
        slots: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        labels: NDArray[np.int32],
        tasks: NDArray[np.int64] | int,
    ) -> None:
        self.references.put(slots, sample_ids, labels, tasks)
        self._changed[slots] = True

    def _count(self) -> None:
        """Number the memories class after class, as the rest of the package does."""
        classes = self.references.classes
        self._by_class = np.argsort(classes, kind="stable")
        numbers, counts = np.unique(classes, return_counts=True)
        self._set_counts(
            {self._names[k]: n for k, n in zip(numbers.tolist(), counts.tolist(), strict=True)}
        )

    @property
    def n_bytes(self) -> int:
        """Size of all memories, as encoded images."""
        ids = self.references.sample_ids[: len(self.references)]
        return int(self._connected().encoded_sizes(ids).sum()) if len(ids) else 0

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, index: int) -> Item:
        """Return the transformed image of a memory, and its labels."""
        self._slots.locate(index)  # raises IndexError
        slot, samples = int(self._by_class[index]), self._connected()
        sample_id = int(self.references.sample_ids[slot])
        image = decode(samples.read(sample_id), lambda: samples.name(sample_id))
        return self._transformed(image), *names_of_labels(self.references.labels[slot], self._names)

    def replay_source(self, class_names_to_idx: Mapping[str, int]) -> Any:
        """Return a snapshot of the memories, class after class, for a loader."""
        ids, labels = self.references.sample_ids, self.references.labels
        return ReferencedSamples(ids[self._by_class], labels[self._by_class], self._connected())

    def add_memory(self, class_label: str, memory: Memory) -> None:
        """Refuse an image that is in no dataset.

        Raises:
            BufferStorageError: Always.
        """
        raise BufferStorageError(
            f"{type(self).__name__} keeps references to the samples of a run, it cannot take images"
        )

    def _choose(self, *args: Any, **kwargs: Any) -> NDArray[np.int64]:
        raise ConfigurationError(
            f"{type(self).__name__} chooses memories among all classes at once, not samples of a "
            "class: a stage on a balanced set needs HerdingBuffer or RandomBuffer"
        )

    def update_buffer_new_task(
        self, new_task_data: TaskSamples, dist_args: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Commit the memories at the end of a task.

        Args:
            new_task_data: The task's data.
            dist_args: Accepted for code written for the published package.
        """
        self._connected()
        self._count()
        n_classes = max((self._indices[name] + 1 for name in new_task_data.cur_task), default=0)
        if rank() == 0:
            self._commit(n_classes)
        self.generation = of_first_process(self.generation, self._device)

    def commit_changes(self) -> None:
        """Write what has changed since the last commit; see :meth:`BufferBase.commit_changes`."""
        if self._changed.any() or self.n_seen != self._committed_n_seen:
            self._count()
            # the last checkpoint names the last generation: nothing needs an older one
            self.store.collect(self.generation)
            self._commit(None)

    def _commit(self, n_classes: int | None) -> None:
        n, changed = len(self.references), np.flatnonzero(self._changed)
        if sum(self._segments.values()) + len(changed) > 2 * n:
            self._segments, changed = {}, np.arange(n)
        if len(changed):
            number = self.store.next_segment()
            self.store.write_segment(self._segment(changed), number)
            self._segments[number] = len(changed)
        self.generation = self.store.commit_generation(
            Generation(self._counts, list(self._segments), self.n_seen, n_classes)
        )
        self._changed[:] = False
        self._committed_n_seen = self.n_seen

    def _segment(self, slots: NDArray[np.int64]) -> Segment:
        labels = self.references.labels[slots]
        used, codes = np.unique(labels, return_inverse=True)
        has_none = len(used) > 0 and used[0] < 0
        return Segment(
            slots,
            self.references.sample_ids[slots],
            (codes.reshape(labels.shape) - has_none).astype(np.int32),
            self.references.tasks[slots],
            [self._names[index] for index in used.tolist() if index >= 0],
            self.columns.read(slots),
        )

    def buffer_state_dict(self) -> dict[str, Any]:
        """Return the state as plain values, after :meth:`commit_changes`."""
        return {**super().buffer_state_dict(), "n_seen": self.n_seen}

    def load_buffer_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Return to an earlier state; see :meth:`BufferBase.load_buffer_state_dict`."""
        number = int(state_dict["generation"])
        self._empty()
        counts = self._load(self.store, number) if number else {}
        if counts != state_dict["counts"] or self.n_seen != state_dict.get("n_seen", self.n_seen):
            raise BufferStorageError(
                f"the checkpoint expects the memories {state_dict['counts']}, but the stored "
                f"generation has {counts}: they belong to different runs"
            )
        self.generation = number
        self.collect_garbage()

    def recall(self, store: BufferStore, class_names: Sequence[str]) -> None:
        """Show the memories of the end of a task; see :meth:`BufferBase.recall`."""
        assert isinstance(store, ReferenceStore)
        if not self.n_slots:
            return
        number = store.after_classes(len(class_names))
        if number is None:
            raise BufferStorageError(
                f"{store.path} has no memories of the time when the run had learned "
                f"{len(class_names)} classes: the run has not learned them yet"
            )
        self._load(store, number)
        self._segments = {}  # those of the other store
        self._changed[: len(self)] = True

    def _load(self, store: ReferenceStore, number: int) -> dict[str, int]:
        """Load a generation, and return its number of memories by class."""
        self._empty()
        generation = store.generation(number)
        for each in generation.segments:
            segment = store.read_segment(each)
            self._segments[each] = len(segment.slots)
            try:
                indices = [self._indices[name] for name in segment.label_names]
                labels = np.array([*indices, -1], np.int32)[segment.labels]
                self._put(segment.slots, segment.sample_ids, labels, segment.tasks)
                self.columns.write(segment.slots, segment.columns)
            except (KeyError, IndexError, ValueError) as error:
                raise BufferStorageError(
                    f"{store.path} does not fit the run ({error}): resume it with the benchmark "
                    "and the settings that it started with"
                ) from error
        self.n_seen = self._committed_n_seen = generation.n_seen
        self._changed[:] = False
        self._count()
        return self.n_memories_per_class

    def _connected(self) -> SampleStore:
        if self._samples is None:
            raise ConfigurationError(
                f"{type(self).__name__} refers to the samples of a run, which puts them there as "
                "it trains: train with run_experiment or iirc train, or use RandomBuffer"
            )
        return self._samples
