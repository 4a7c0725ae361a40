"""Memories for plain PyTorch code: mixed with a task's samples, or as endless batches."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from iirc_data.loader import Batch
from iirc_data.order import endless_order, memories_of_epoch
from iirc_train.buffer.labels import transform_labels_names_to_vector
from iirc_train.buffer.samples import Samples


class TaskDataMergedWithBuffer(Dataset[tuple[Any, ...]]):
    """A dataset of a task's samples followed by memories.

    Each epoch shows every memory ⌊multiplier⌋ times. The fractional part of the multiplier adds
    memories drawn without replacement; the draw differs between epochs.

    Args:
        buffer: The replay buffer.
        task_data: The task's data; returns ``(image, label, …)`` for an index.
        buffer_sampling_multiplier: Memories shown per epoch, as a multiple of the buffer's size.
        seed: Seed of the draw.

    Raises:
        ValueError: The multiplier is negative.
    """

    def __init__(
        self,
        buffer: Samples,
        task_data: Samples,
        buffer_sampling_multiplier: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not buffer_sampling_multiplier >= 0:
            raise ValueError(
                f"buffer_sampling_multiplier must be 0 or more, got {buffer_sampling_multiplier}"
            )
        self.buffer = buffer
        self.task_data = task_data
        self.buffer_sampling_multiplier = buffer_sampling_multiplier
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the memories of an epoch. Call this before reading the epoch's first sample."""
        self.memories = memories_of_epoch(
            len(self.buffer), self.buffer_sampling_multiplier, self.seed, epoch
        )

    def __len__(self) -> int:
        return len(self.task_data) + len(self.memories)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return an image, its labels, and whether it is a memory."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if index < len(self.task_data):
            return (*self.task_data[index], False)
        return (*self.buffer[int(self.memories[index - len(self.task_data)])], True)


def memory_batches(
    buffer: Samples,
    class_names_to_idx: Mapping[str, int],
    n_seen_classes: int,
    *,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Yield batches of memories endlessly, in passes over all memories, each in a new order.

    Every batch is full; it may start in one pass and end in the next. If there are fewer memories
    than ``batch_size``, every batch is one pass.

    Args:
        buffer: The replay buffer; returns ``(image, label, …)`` for an index.
        class_names_to_idx: Index of each class.
        n_seen_classes: Length of the targets.
        batch_size: Memories per batch.
        seed: Seed of the order.
        device: Device of the batches.
    """
    n = min(batch_size, len(buffer))
    for start in count(step=n):
        order = endless_order(len(buffer), seed=seed, start=start, stop=start + n)
        images, *labels = default_collate([buffer[slot] for slot in order.tolist()])
        names = list(zip(*labels, strict=True))
        targets = transform_labels_names_to_vector(names, n_seen_classes, dict(class_names_to_idx))
        yield Batch(
            images=images.to(device),
            targets=targets.to(device),
            in_buffer=torch.ones(n, dtype=torch.bool, device=device),
            sample_ids=torch.from_numpy(-1 - order),
        )
