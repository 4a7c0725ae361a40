"""A task's data as methods and buffers see it: the published attributes over a task view."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iirc_data.augment import TransformPreset
from iirc_data.decoding import decode
from iirc_data.definitions import NO_LABEL_PLACEHOLDER
from iirc_data.loader import Batch, Engine, Loader, make_loader
from iirc_data.loader.engine import read_plain
from iirc_data.shards import ShardStore
from iirc_data.task_view import TaskView


class TaskData:
    """The samples of one task, with the attributes of the published dataset that methods use.

    Args:
        view: The task's view.
        store: The shards that hold its samples.
        transforms: How images are shown.
        engine: What decodes them.
        device: Where batches are wanted.
        seed: Seed of the order in which ``get_image_indices_by_cla`` shuffles.
    """

    def __init__(
        self,
        view: TaskView,
        store: ShardStore,
        transforms: TransformPreset,
        engine: Engine,
        device: torch.device,
        seed: int,
    ) -> None:
        self.view = view
        self._store = store
        self._transforms = transforms
        self._engine = engine
        self._device = device
        self._seed = seed
        self._augment = True
        self.cur_task_id = view.seen_up_to
        self.seen_classes = list(view.seen_class_names)

    @property
    def cur_task(self) -> list[str]:
        """Names of the classes that the task introduces."""
        return list(self.view.task_class_names)

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str, str]:
        """Return an image as the network gets it, float32 (3, H, W), and its labels."""
        (batch,) = self.loader(np.array([index]), 1)
        return (batch.images[0], *self.get_labels(index))

    def get_item(self, index: int) -> tuple[Image.Image, str, str]:
        """Return an image as it is stored, RGB, and its labels."""
        sample_id = int(self.view.sample_ids[index])
        image = decode(self._store.read(sample_id), lambda: self._store.name(sample_id))
        return (image, *self.get_labels(index))

    def get_labels(self, index: int) -> tuple[str, str]:
        """Return a sample's visible labels, ``NO_LABEL_PLACEHOLDER`` for none."""
        names = [*self.view.class_names, NO_LABEL_PLACEHOLDER]  # -1 is the last
        first, second = self.view.labels[index].tolist()
        return names[first], names[second]

    def get_image_indices_by_cla(
        self, cla: str, num_samples: int = -1, shuffle: bool = True
    ) -> NDArray[np.int64]:
        """Return the indices of a class's samples in this task.

        Args:
            cla: Name of the class.
            num_samples: At most so many; -1 for all.
            shuffle: In an order drawn from the seed and the class; else in ascending order.
        """
        class_index = self.view.class_names.index(cla)
        indices = self.view.positions_of_class(class_index)
        if shuffle:
            indices = np.random.default_rng([self._seed, class_index]).permutation(indices)
        return indices if num_samples < 0 else indices[:num_samples]

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        """A context in which images come as for evaluation."""
        before, self._augment = self._augment, False
        try:
            yield
        finally:
            self._augment = before

    def loader(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Iterate over some samples in the given order, decoded in batches."""
        loader: Loader = make_loader(
            self.view.subset(indices),
            self._store,
            transforms=self._transforms,
            train=self._augment,
            shuffle=False,
            batch_size=batch_size,
            seed=self._seed,
            device=self._device,
            engine=self._engine,
        )
        return iter(loader)

    def encoded(self, index: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return an encoded image, RGB or grayscale, and its height and width."""
        sample_id = int(self.view.sample_ids[index])
        table = self._store.table
        size = int(table.height[sample_id]), int(table.width[sample_id])
        return read_plain(self._store, sample_id), size
