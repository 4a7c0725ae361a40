"""The batch that a loader yields, and the interface that it needs of a replay buffer."""

from dataclasses import dataclass
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
            float32, or uint8 with ``normalize=False``.
        targets: float32 (N, classes seen so far), 1 where a label is visible.
        in_buffer: bool (N,), True for samples replayed from the buffer.
        sample_ids: int64 (N,), on the CPU: row of the sample table, or ``-1 - slot`` for a
            replayed sample.
        share: Fraction, in [0, 1], of the batch of all processes that this process holds.
    """

    images: torch.Tensor
    targets: torch.Tensor
    in_buffer: torch.Tensor
    sample_ids: torch.Tensor
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.sample_ids)


class ReplaySource(Protocol):
    """The memories of a replay buffer, numbered by slot, as a loader reads them."""

    def __len__(self) -> int:
        """Return the number of memories."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (memories, 2): class indices of each memory's labels, -1 for none."""

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


def indicator_targets(labels: NDArray[np.int32], n_classes: int) -> torch.Tensor:
    """Encode labels as indicator vectors.

    Args:
        labels: int32 (N, 2), class indices, -1 for none.
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
