"""The samples and memories of a task as methods see them: published attributes, our loaders."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.augment import TransformPreset
from iirc_data.decoding import decode
from iirc_data.definitions import ORDER_BLOCKS, Item, Labels, OrderName
from iirc_data.features.store import images_of
from iirc_data.label_combinations import names_of_labels
from iirc_data.loader import Batch, Decoder, Loader, ReplaySource, make_loader
from iirc_data.loader.decoder import read_plain
from iirc_data.loader.step_loader import StepPlan
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_view import TaskView
from iirc_train.buffer import BufferBase
from iirc_train.runtime.distributed import rank, world_size

NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class ImageReader:
    """Makes loaders that share shards, transforms, decoder, device and seed.

    Attributes:
        store: The shards with the samples.
        transforms: Transforms of each dataset for training and for evaluation.
        decoder: What decodes them.
        device: Device of the batches.
        seed: Seed of order and augmentation.
        order: How epochs are shuffled, see :func:`make_loader`.
        order_blocks: Blocks that the bounded order works through at a time.
        normalize: Normalise images to float32; otherwise they are uint8.
    """

    store: SampleStore
    transforms: Mapping[str, TransformPreset]
    decoder: Decoder
    device: torch.device
    seed: int
    order: OrderName = "exact"
    order_blocks: int = ORDER_BLOCKS
    normalize: bool = True

    def loader(
        self,
        view: TaskView,
        batch_size: int,
        replay: ReplaySource | None = None,
        *,
        augment: bool,
        shuffle: bool = False,
        endless: bool = False,
        shared: bool = False,
        replay_multiplier: float = 1.0,
        resident: bool | None = False,
        plan: StepPlan | None = None,
    ) -> Loader:
        """Return a loader of the samples of a view and of memories.

        Args:
            view: The samples.
            batch_size: Samples per batch and process.
            replay: The memories.
            augment: Apply the training transforms instead of those for evaluation.
            shuffle: Draw a new order each epoch.
            endless: Make epochs sections of an endless stream; see :func:`make_loader`.
            shared: Each process loads its part; otherwise each loads everything.
            replay_multiplier: Number of times an epoch shows each memory, on average.
            resident: Keep decoded images on the device; None decides by size.
            plan: Draws memories for each step; see :func:`make_loader`.
        """
        return make_loader(
            view,
            self.store,
            replay,
            transforms=self.transforms,
            train=augment,
            normalize=self.normalize,
            shuffle=shuffle,
            endless=endless,
            batch_size=batch_size,
            replay_multiplier=replay_multiplier,
            order=self.order,
            order_blocks=self.order_blocks,
            resident=resident,
            seed=self.seed,
            rank=rank() if shared else 0,
            world_size=world_size() if shared else 1,
            device=self.device,
            decoder=self.decoder,
            plan=plan,
        )


class _Augmented:
    """Data whose images are augmented, except inside :meth:`disable_augmentations`."""

    _augment = True

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        """Apply the transforms for evaluation inside the block."""
        before, self._augment = self._augment, False
        try:
            yield
        finally:
            self._augment = before


class TaskData(_Augmented):
    """The samples of one task, with the attributes of the published dataset that methods use.

    Args:
        view: The task's view.
        reader: Makes the loaders; its seed also shuffles ``get_image_indices_by_cla``.
    """

    def __init__(self, view: TaskView, reader: ImageReader) -> None:
        self.view = view
        self.cur_task_id = view.seen_up_to
        self.seen_classes = list(view.seen_class_names)
        self._reader = reader

    @property
    def cur_task(self) -> list[str]:
        """Names of the classes that the task introduces."""
        return list(self.view.task_class_names)

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> Item:
        """Return a sample as network input, float32 (3, H, W) or (D,), and its labels."""
        (batch,) = self.loader(np.array([index]), 1)
        return (batch.images[0], *self.get_labels(index))

    def get_item(self, index: int) -> Item:
        """Return the stored image, in RGB and not transformed, and its labels."""
        sample_id = int(self.view.sample_ids[index])
        store = images_of(self._reader.store)
        image = decode(store.read(sample_id), lambda: store.name(sample_id))
        return (image, *self.get_labels(index))

    def get_labels(self, index: int) -> Labels:
        """Return the visible labels of a sample, ``NO_LABEL_PLACEHOLDER`` where it has none."""
        return names_of_labels(self.view.labels[index], self.view.class_names)

    def get_image_indices_by_cla(
        self, cla: str, num_samples: int = -1, shuffle: bool = True
    ) -> NDArray[np.int64]:
        """Return the indices of a class's samples in this task.

        Args:
            cla: Name of the class.
            num_samples: Largest number of indices to return; -1 for all.
            shuffle: Shuffle by the seed and the class; otherwise return the first indices in the
                order of the published dataset, ascending.
        """
        class_index = self.view.class_names.index(cla)
        first = None if num_samples < 0 else num_samples
        if not shuffle:
            return self.view.positions_of_class(class_index, first)
        indices = self.view.positions_of_class(class_index)
        generator = np.random.default_rng([self._reader.seed, class_index])
        return generator.permutation(indices)[:first]

    def loader(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Iterate over the given samples in the given order, in batches."""
        view = self.view.subset(indices)
        return iter(self._reader.loader(view, batch_size, augment=self._augment))

    def encoded(self, index: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return an encoded image, RGB or grayscale, uint8 (bytes,); and its height and width."""
        sample_id = int(self.view.sample_ids[index])
        height, width = self._reader.store.sizes(np.array([sample_id]))[0].tolist()
        return read_plain(self._reader.store, sample_id), (height, width)

    def dataset_number(self, index: int) -> int:
        """Return the number of the dataset that a sample is from."""
        sample_ids = self.view.sample_ids[index : index + 1]
        return int(self._reader.store.dataset_numbers(sample_ids)[0])


class MemoryData(_Augmented):
    """The current memories of a buffer, with the published attributes that methods use.

    Args:
        buffer: The replay buffer.
        view: The current task's view; the targets are its seen classes.
        reader: Makes the loaders.
    """

    def __init__(self, buffer: BufferBase, view: TaskView, reader: ImageReader) -> None:
        self.n_memories_per_class = buffer.n_memories_per_class
        self.get_image_indices_by_class = buffer.get_image_indices_by_class
        self._memories = buffer.replay_source({name: i for i, name in enumerate(view.class_names)})
        self._names = view.class_names
        self._no_samples = view.subset(NOTHING)
        self._reader = reader

    def __len__(self) -> int:
        return len(self._memories)

    def __getitem__(self, index: int) -> Item:
        """Return a memory as network input, float32 (3, H, W) or (D,), and its labels."""
        (batch,) = self.loader(np.array([index]), 1)
        return (batch.images[0], *names_of_labels(self._memories.labels[index], self._names))

    def loader(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Iterate over the given memories in the given order, in batches."""
        chosen = self._memories.subset(indices)
        return iter(
            self._reader.loader(self._no_samples, batch_size, chosen, augment=self._augment)
        )

    def endless_batches(
        self, batch_size: int, first_batch: int = 0, *, resident: bool | None = None
    ) -> Iterator[Batch]:
        """Iterate over all memories endlessly, in passes that are each shuffled.

        Every batch is full: it may span the end of one pass and the start of the next. If there
        are fewer memories than a batch needs, every batch is one pass.

        Args:
            batch_size: Memories per batch and process; processes share each batch.
            first_batch: Number of batches to skip at the start.
            resident: Keep decoded images on the device; None decides by size.
        """
        loader = self._reader.loader(
            self._no_samples,
            batch_size,
            self._memories,
            augment=True,
            endless=True,
            shared=True,
            resident=resident,
        )
        first_epoch, first_batch = divmod(first_batch, len(loader))
        for epoch in count(first_epoch):
            loader.set_epoch(epoch, first_batch)
            yield from loader
            first_batch = 0
