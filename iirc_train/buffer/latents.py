"""Latents of samples, for herding, class means and imprinted weights."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from iirc_train.buffer.samples import DecodesBatches, Samples
from iirc_train.runtime.distributed import gathered, share_of, world_size

BATCH_SIZE = 128
"""Default number of samples per batch."""


class LatentSource(Protocol):
    """Something that computes latents, such as a method."""

    @property
    def device(self) -> torch.device:
        """Device that images must be on."""

    def inference(self) -> AbstractContextManager[None]:
        """Return a context for calling :meth:`forward_net` in evaluation mode."""

    def full_precision(self) -> AbstractContextManager[None]:
        """Return a context that computes in the type of the parameters."""

    def forward_net(self, x: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, D) of images (N, 3, H, W)."""


class SubsetSampler(Sampler[int]):
    """Samples the given indices in order, each once.

    Args:
        indices: The indices.
    """

    def __init__(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return map(int, self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def class_latents(
    method: LatentSource, samples: Samples, indices: NDArray[np.int64], batch_size: int = BATCH_SIZE
) -> torch.Tensor:
    """Return the latents of some samples, without augmentation.

    Latents are computed in full precision, regardless of the precision of training. With several
    processes, all must call this; they share the work.

    Args:
        method: Computes the latents.
        samples: A dataset.
        indices: Indices of samples, int64 (N,).
        batch_size: Samples per batch; the result does not depend on it.

    Returns:
        float32 (N, D), on the CPU, in the order of ``indices``.
    """
    is_shared = len(indices) >= world_size()
    mine = indices[share_of(len(indices))] if is_shared else indices
    with samples.disable_augmentations(), method.inference(), method.full_precision():
        batches = _image_batches(samples, mine, batch_size, method.device)
        latents = torch.cat([method.forward_net(images)[1].float() for images in batches])
    latents = latents.clone()  # inference tensors cannot be used in autograd
    return (gathered(latents) if is_shared else latents).cpu()


def _image_batches(
    samples: Samples, indices: NDArray[np.int64], batch_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    if isinstance(samples, DecodesBatches):
        for batch in samples.loader(indices, batch_size):
            yield batch.images
    else:
        sampler = SubsetSampler(indices)
        for images, *_ in DataLoader(samples, batch_size, sampler=sampler):  # type: ignore[arg-type]
            yield images.to(device)
