"""The base class of replay buffers, which keep samples of earlier classes for replay."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from torch.utils.data import Dataset

from iirc_data.decoding import decode
from iirc_data.definitions import Item, Labels, PathLike
from iirc_data.errors import BufferStorageError, ConfigurationError
from iirc_data.shards.sample_store import SampleStore
from iirc_train.buffer.class_arrays import ClassMemories, Memory
from iirc_train.buffer.columns import Column
from iirc_train.buffer.encoding import encoded_memory, memory_of
from iirc_train.buffer.latents import BATCH_SIZE, LatentSource
from iirc_train.buffer.samples import TaskSamples
from iirc_train.buffer.slots import Slots
from iirc_train.buffer.snapshot import ReplaySnapshot
from iirc_train.buffer.store import BufferStore
from iirc_train.config.experiment import BufferConfig
from iirc_train.runtime.distributed import of_first_process, rank, wait_for_all, world_size

TransformFunction = Callable[[Image.Image], torch.Tensor]


class BufferBase(Dataset[Item], ABC):
    """A buffer that saves memories of each task, to be replayed during later tasks.

    Slots number the memories: class after class in the order of arrival, and within a class the
    most important memory first.

    Args:
        config: ``n_memories_per_class``, ``total_n_mems`` and ``max_mems_pool_per_class``; see
            :class:`~iirc_train.config.experiment.BufferConfig`.
        buffer_dir: Folder for the Zarr hierarchy; None keeps it in memory.
        map_size: Ignored, because Zarr needs no size in advance. Accepted for code written for the
            published package.
        essential_transforms_fn: Transforms images when they are indexed, if augmentations are
            disabled or ``augmentation_transforms_fn`` is None.
        augmentation_transforms_fn: Transforms images when they are indexed.

    Raises:
        ConfigurationError: A setting is wrong.
        BufferStorageError: ``buffer_dir`` contains something else, or is None although several
            processes share the buffer.
    """

    Store: ClassVar[type[BufferStore]] = BufferStore
    """Class of the store, which reads and writes the layout of this buffer."""

    has_pool: ClassVar[bool] = True
    """Whether memories are chosen within a class, from at most ``max_mems_pool_per_class``."""

    needs_memories: ClassVar[str] = ""
    """What an error says if the settings ask for no memories; empty if that is allowed."""

    def __init__(
        self,
        config: Mapping[str, Any] | BaseModel,
        buffer_dir: PathLike | None = None,
        map_size: float = 1e9,
        essential_transforms_fn: TransformFunction | None = None,
        augmentation_transforms_fn: TransformFunction | None = None,
    ) -> None:
        self.config = BufferConfig.from_any(config)
        if self.needs_memories and not self.config.keeps_memories:
            raise ConfigurationError(self.needs_memories)
        self.store = _open_store(self.Store, buffer_dir)
        self.essential_transforms_fn = essential_transforms_fn
        self.augmentation_transforms_fn = augmentation_transforms_fn
        self._apply_augmentations = True
        self._device = torch.device("cpu")
        self.generation = 0
        self._set_counts({})
        self._classes: dict[str, ClassMemories] = {}
        self._added: dict[str, list[Memory]] | None = None

    @property
    def n_memories_per_class(self) -> dict[str, int]:
        """Number of memories of each class, in the order of arrival."""
        return dict(self._counts)

    @property
    def n_bytes(self) -> int:
        """Size of all memories, as encoded images."""
        return sum(int(self._memories(name).offsets[n]) for name, n in self._counts.items())

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> Item:
        """Return the transformed image of a memory, and its labels."""
        class_name, number = self._slots.locate(index)
        memories = self._memories(class_name)
        image = decode(memories.encoded(number), lambda: f"replay buffer:{class_name}/{number}")
        return (self._transformed(image), *memories.labels_of(number))

    def _transformed(self, image: Image.Image) -> Any:
        transform = self.essential_transforms_fn
        if self._apply_augmentations and self.augmentation_transforms_fn is not None:
            transform = self.augmentation_transforms_fn
        return image if transform is None else transform(image)

    def get_image_indices_by_class(self, class_name: str) -> NDArray[np.int64]:
        """Return the slots of a class's memories, int64, most important first.

        Raises:
            BufferStorageError: The class is not in the buffer.
        """
        if class_name not in self._counts:
            raise BufferStorageError(
                f"the buffer has no class {class_name!r}, only {list(self._counts)}"
            )
        return self._slots.of_class(class_name)

    def replay_source(self, class_names_to_idx: Mapping[str, int]) -> ReplaySnapshot:
        """Return a snapshot of the memories, for a loader.

        Args:
            class_names_to_idx: Index of each class.
        """
        return ReplaySnapshot(
            [(name, self._memories(name), count) for name, count in self._counts.items()],
            class_names_to_idx,
        )

    def connect(
        self,
        samples: SampleStore,
        class_names_to_idx: Mapping[str, int],
        *,
        seed: int = 0,
        columns: Sequence[Column] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """Connect the empty buffer with a run, for a buffer that keeps references or columns.

        Args:
            samples: The samples of the run.
            class_names_to_idx: Index of each class.
            seed: Seed of the run.
            columns: What the method keeps for each memory beside its image.
            device: The training device.

        Raises:
            ConfigurationError: The buffer keeps no columns.
        """
        self._device = torch.device(device)
        if columns:
            raise ConfigurationError(
                f"the method keeps {', '.join(c.name for c in columns)} for each memory, but "
                f"{type(self).__name__} keeps images only: use ReservoirBuffer"
            )

    def commit_changes(self) -> None:
        """Write what has changed since the last commit, before a checkpoint; in the first process.

        This buffer changes at the ends of tasks only, and commits there.
        """

    def begin_adding_samples(self) -> None:
        """Start a transaction: changes take effect when it ends."""
        self._added = {}

    def add_sample(
        self, class_label: str, image: Image.Image, labels: Labels, rank: int = 0
    ) -> None:
        """Add an image, encoded losslessly as PNG.

        Args:
            class_label: The class that the memory belongs to.
            image: The image; converted to RGB.
            labels: All its labels, ``NO_LABEL_PLACEHOLDER`` for none.
            rank: Rank of the process; not used.

        Raises:
            BufferStorageError: No transaction is open, or the class was added earlier.
        """
        self.add_memory(class_label, encoded_memory(image, labels))

    def add_memory(self, class_label: str, memory: Memory) -> None:
        """Add an encoded image unchanged; see :meth:`add_sample`."""
        if self._added is None:
            raise BufferStorageError("call begin_adding_samples() before adding samples")
        if class_label in self._counts:
            raise BufferStorageError(
                f"class {class_label!r} is already in the buffer: a class is added only once"
            )
        self._added.setdefault(class_label, []).append(memory)

    def remove_samples(self, class_label: str, n: int) -> None:
        """Remove the n least important memories of a class.

        Raises:
            BufferStorageError: The class is not in the buffer.
        """
        if class_label not in self._counts:
            raise BufferStorageError(f"the buffer has no class {class_label!r}")
        left = max(0, self._counts[class_label] - n)
        self._set_counts({**self._counts, class_label: left})

    def end_adding_samples(self) -> None:
        """End the transaction: write the new classes and a new generation."""
        counts = dict(self._counts)
        for class_label, memories in (self._added or {}).items():
            self.store.write_class(class_label, memories, number=len(counts))
            counts[class_label] = len(memories)
        self.generation = self.store.commit(counts)
        self._set_counts(counts)
        self._added = None

    def reset_database(self) -> None:
        """Drop cached memories. The published code calls this after each epoch."""
        self._classes.clear()

    begin_adding_samples_to_lmdb = begin_adding_samples
    end_adding_samples_to_lmdb = end_adding_samples
    reset_lmdb_database = reset_database

    def update_buffer_new_task(
        self,
        new_task_data: TaskSamples,
        dist_args: dict[str, Any] | None = None,
        *,
        method: LatentSource | None = None,
        batch_size: int = BATCH_SIZE,
        model: LatentSource | None = None,
    ) -> None:
        """Add memories of a new task's classes; with a fixed total, shrink older classes first.

        With ``total_n_mems``, each seen class keeps ⌈total / seen classes⌉ memories. All processes
        must call this; the first one writes.

        Args:
            new_task_data: The task's data.
            dist_args: Accepted for code written for the published package.
            method: Computes latents, for buffers that choose memories by them.
            batch_size: Samples per batch when latents are computed.
            model: The published package's name for ``method``.
        """
        new_classes = list(new_task_data.cur_task)
        n = self.places_per_class(len(self._counts) + len(new_classes))
        method = model if method is None else method
        chosen: dict[str, NDArray[np.int64]] = {}
        if n:
            chosen = self.choose(
                new_task_data, new_classes, n, method=method, batch_size=batch_size
            )
        if rank() == 0:
            self._set_counts({name: min(count, n) for name, count in self._counts.items()})
            # a class without memories still takes its share of a fixed total
            self._added = {class_label: [] for class_label in chosen}
            for class_label, indices in chosen.items():
                for index in indices.tolist():
                    self.add_memory(class_label, memory_of(new_task_data, index))
            self.end_adding_samples()
        # not as the folder lists it: a network file system may show another machine an old list
        self.generation = of_first_process(self.generation, self._device)
        if rank() > 0:
            self._set_counts(self.store.counts(self.generation))

    def choose(
        self,
        task_data: TaskSamples,
        class_names: Sequence[str],
        n: int,
        *,
        method: LatentSource | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> dict[str, NDArray[np.int64]]:
        """Choose samples of classes as memories, without adding them; see :meth:`_choose`."""
        with self._choosing(method):
            return {
                name: self._choose(task_data, name, n, method=method, batch_size=batch_size)
                for name in class_names
            }

    def _choosing(self, method: LatentSource | None) -> AbstractContextManager[None]:
        """Return a context that encloses the choice for all classes of a task."""
        return nullcontext()

    @abstractmethod
    def _choose(
        self,
        task_data: TaskSamples,
        class_label: str,
        n: int,
        *,
        method: LatentSource | None,
        batch_size: int,
    ) -> NDArray[np.int64]:
        """Choose the memories of a class.

        Args:
            task_data: The task's data.
            class_label: Name of the class.
            n: Number of memories to choose; if the class has fewer samples, all of them.
            method: Computes latents; None if the caller gave none.
            batch_size: Samples per batch when latents are computed.

        Returns:
            Indices in the task's data, int64, most important first.
        """

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        """A context that applies the essential transform instead of augmentations."""
        before, self._apply_augmentations = self._apply_augmentations, False
        try:
            yield
        finally:
            self._apply_augmentations = before

    def buffer_state_dict(self) -> dict[str, Any]:
        """Return the state as plain values: the generation, and its number of memories by class."""
        return {"generation": self.generation, "counts": dict(self._counts)}

    def load_buffer_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Return to an earlier state, and remove everything else from storage.

        Raises:
            BufferStorageError: The generation is missing, or has other numbers of memories.
        """
        generation = int(state_dict["generation"])
        counts = self.store.counts(generation) if generation else {}
        if counts != state_dict["counts"]:
            raise BufferStorageError(
                f"the checkpoint expects the memories {state_dict['counts']}, but the stored "
                f"generation has {counts}: they belong to different runs"
            )
        self._set_counts(counts)
        self.generation, self._added = generation, None
        self._classes.clear()
        self.collect_garbage()

    def recall(self, store: BufferStore, class_names: Sequence[str]) -> None:
        """Show the memories that a run had when it had learned the given classes.

        Args:
            store: The run's store, which may contain more classes by now. It is only read.
            class_names: The classes, in the order in which the run learned them.

        Raises:
            BufferStorageError: Memories of a class are missing or damaged.
        """
        n = self.places_per_class(len(class_names))
        learned = list(class_names) if n else []
        stored = list(store.counts(max(store.generations()))) if store.generations() else []
        if stored[: len(learned)] != learned:
            missing = [name for name in learned if name not in stored] or learned
            raise BufferStorageError(
                f"{store.path} has no memories of {', '.join(missing[:5])}"
                f"{', …' if len(missing) > 5 else ''}: the run has not learned them yet, or "
                "learned other classes"
            )
        self.store = store
        self._classes = {name: store.read_class(i, name) for i, name in enumerate(learned)}
        self._set_counts({name: min(n, len(kept.labels)) for name, kept in self._classes.items()})

    def collect_garbage(self) -> None:
        """Remove from storage everything that the current generation does not use."""
        if rank() == 0:
            self.store.collect(self.generation)
        wait_for_all()

    def places_per_class(self, n_seen_classes: int) -> int:
        """Return how many memories each class may keep after so many classes."""
        if self.config.n_memories_per_class >= 0:
            return self.config.n_memories_per_class
        return -(-self.config.total_n_mems // max(n_seen_classes, 1))

    def _memories(self, class_name: str) -> ClassMemories:
        if class_name not in self._classes:
            number = self._slots.class_number(class_name)
            self._classes[class_name] = self.store.read_class(number, class_name)
        return self._classes[class_name]

    def _set_counts(self, counts: dict[str, int]) -> None:
        self._counts, self._slots = counts, Slots(counts)


def _open_store(store_class: type[BufferStore], buffer_dir: PathLike | None) -> BufferStore:
    if buffer_dir is None:
        if world_size() > 1:
            raise BufferStorageError(
                f"a buffer that {world_size()} processes share cannot be in memory: set buffer_dir"
            )
        return store_class()
    if rank() > 0:
        wait_for_all()  # until the first process has created it
    store = store_class(Path(buffer_dir))
    if rank() == 0:
        wait_for_all()
    return store
