"""Batches of a dataset's samples with their visible labels, in order."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from iirc_train.buffer.labels import transform_labels_names_to_vector
from iirc_train.buffer.latents import SubsetSampler
from iirc_train.buffer.samples import DecodesBatches, Samples


def labelled_batches(
    samples: Samples,
    indices: NDArray[np.int64],
    class_names_to_idx: dict[str, int],
    *,
    n_classes: int,
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate over images and indicator targets of samples.

    Args:
        samples: A dataset.
        indices: Indices of samples, int64 (N,).
        class_names_to_idx: Index of each class.
        n_classes: Number of columns of the targets; labels of later classes are dropped.
        device: Device of the result.
        batch_size: Samples per batch.

    Yields:
        Images (N, 3, H, W), and targets, float32 (N, n_classes).
    """
    if isinstance(samples, DecodesBatches):
        for batch in samples.loader(indices, batch_size):
            targets = batch.targets[:, :n_classes]
            yield batch.images, F.pad(targets, (0, n_classes - targets.shape[1]))
        return
    sampler = SubsetSampler(indices)
    for images, *labels in DataLoader(samples, batch_size, sampler=sampler):  # type: ignore[arg-type]
        names: Sequence[tuple[str, ...]] = list(zip(*labels, strict=True))
        targets = transform_labels_names_to_vector(names, n_classes, class_names_to_idx)
        yield images.to(device), targets.to(device)
