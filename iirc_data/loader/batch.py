"""The batch that a loader yields, and the interface that it needs of a replay buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.definitions import NO_LABEL


@dataclass(frozen=True)
class Batch:
    """Images with their visible labels.

    Attributes:
        images: (N, 3, H, W) in channels-last memory format, on the training device: normalised
            float32, or uint8 with ``normalize=False``. With cached features, float32 (N, D).
        targets: float32 (N, classes seen so far), 1 where a label is visible.
        in_buffer: bool (N,), True for samples replayed from the buffer.
        sample_ids: int64 (N,), on the CPU: row of the sample table, or ``-1 - slot`` for a
            replayed sample.
        share: Fraction, in [0, 1], of the batch of all processes that this process holds.
        draws: The memories drawn for this step, for a method that draws them in each step.
        whole: With draws, the samples of this batch followed by those of each draw; the images of
            this batch are a view of its images.
        placement: Which of the samples become memories; None if the buffer does not change in each
            step.
    """

    images: torch.Tensor
    targets: torch.Tensor
    in_buffer: torch.Tensor
    sample_ids: torch.Tensor
    share: float = 1.0
    draws: tuple[Draw, ...] = ()
    whole: Batch | None = None
    placement: Placement | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)


@dataclass(frozen=True)
class Draw:
    """Memories drawn for one step.

    Attributes:
        rows: Their rows in :attr:`Batch.whole`.
        n_total: Number of memories drawn by all processes together.
        slots: int64 (M,), on the training device: the place of each memory in the buffer.
        columns: What the buffer keeps beside the images, by name: (M, ...), on the training device.
    """

    rows: slice
    n_total: int
    slots: torch.Tensor
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Where a buffer puts the samples of a step, over all processes.

    Attributes:
        slots: int64 (B,): the slot of each sample of the batch of all processes, or the number of
            slots if the sample is not kept. No slot occurs twice.
        slots_on_device: The same, on the training device.
        sample_ids: int64 (B,), rows of the sample table.
        labels: int32 (B, L), class indices of the visible labels, -1 for none.
        sizes: Number of samples of each process, in order of rank.
    """

    slots: NDArray[np.int64]
    slots_on_device: torch.Tensor
    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    sizes: tuple[int, ...]


class ReplaySource(Protocol):
    """The memories of a replay buffer, numbered by slot, as a loader reads them."""

    def __len__(self) -> int:
        """Return the number of memories."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (memories, L): class indices of each memory's labels, -1 for none."""

    @property
    def heights(self) -> NDArray[np.int32]:
        """int32 (memories,), pixels."""

    @property
    def widths(self) -> NDArray[np.int32]:
        """int32 (memories,), pixels."""

    def read(self, slot: int) -> NDArray[np.uint8]:
        """Return one memory's encoded image, an RGB or grayscale JPEG or PNG, uint8 (bytes,)."""

    def name(self, slot: int) -> str:
        """Return the name of a memory for error messages."""


@runtime_checkable
class KnowsDatasets(Protocol):
    """A replay source that knows the dataset of each memory; needed with several datasets."""

    @property
    def datasets(self) -> NDArray[np.int64]:
        """int64 (memories,): number of the dataset that each memory's image came from."""


def batch_with_draws(batch: Batch, *draws: tuple[Batch, Mapping[str, torch.Tensor]]) -> Batch:
    """Return a batch together with memories drawn for its step.

    For code that has its images at hand, such as tests; a loader decodes all of them together.

    Args:
        batch: The samples.
        *draws: The memories of each draw, and their columns.
    """
    parts = [batch, *(memories for memories, _ in draws)]
    whole = Batch(
        torch.cat([part.images for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat([batch.in_buffer, *(torch.ones_like(m.in_buffer) for m, _ in draws)]),
        torch.cat([part.sample_ids for part in parts]),
        batch.share,
    )
    drawn, start = [], len(batch)
    for memories, columns in draws:
        rows = slice(start, start := start + len(memories))
        slots = torch.arange(len(memories), device=batch.images.device)
        drawn.append(Draw(rows, len(memories), slots, columns))
    return replace(batch, draws=tuple(drawn), whole=whole)


def indicator_targets(labels: NDArray[np.int32], n_classes: int) -> torch.Tensor:
    """Encode labels as indicator vectors.

    Args:
        labels: int32 (N, L), class indices, -1 for none.
        n_classes: Number of classes; labels with an index of ``n_classes`` or above are dropped.

    Returns:
        float32 (N, n_classes).
    """
    targets = np.zeros((len(labels), n_classes), np.float32)
    rows, columns = np.nonzero((labels != NO_LABEL) & (labels < n_classes))
    targets[rows, labels[rows, columns]] = 1.0
    return torch.from_numpy(targets)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for the copy to finish."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # copies from pageable memory are synchronous
    return tensor.to(device, non_blocking=device.type == "cuda")
