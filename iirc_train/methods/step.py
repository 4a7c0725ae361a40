"""A step: everything that a method computes its loss from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from iirc_train.runtime.distributed import total


class DrawnMemories(NamedTuple):
    """The memories of one draw.

    Attributes:
        rows: Their rows in the step's tensors.
        scale: Factor that turns a mean over these rows into this process's contribution to the mean
            over the draw of all processes; 1 with one process.
        columns: What the buffer keeps for each of them, by name: (M, values), NaN where a memory
            has fewer values.
    """

    rows: slice
    scale: float
    columns: Mapping[str, torch.Tensor]


class Step(NamedTuple):
    """A batch and the network's output for it.

    With several processes, this is the process's own part of the batch. A loss that is a mean over
    samples can ignore this. A loss with a normalisation of its own uses :meth:`average` and
    :meth:`total`; then it does not depend on the number of processes.

    Attributes:
        output: Logits (N, classes seen).
        latent: Latents (N, D).
        images: (N, 3, H, W).
        targets: Indicator targets, float32 (N, classes seen).
        in_buffer: bool (N,), True for replayed samples.
        share: This process's share of the whole batch, in (0, 1].
        draws: The memories that the step draws, whose rows follow those of the batch.
        all_output: Logits of all outputs of the network, (N, outputs), for a method that draws
            memories in each step.
        scale: As :attr:`DrawnMemories.scale`, of the mean over all rows.
        maps: The network's feature maps, (N, C, ...) each, from first to last stage, if the method
            sets ``compares_feature_maps``; in training only.
    """

    output: torch.Tensor
    latent: torch.Tensor
    images: torch.Tensor
    targets: torch.Tensor
    in_buffer: torch.Tensor
    share: float = 1.0
    draws: tuple[DrawnMemories, ...] = ()
    all_output: torch.Tensor | None = None
    scale: float = 1.0

    @property
    def stream(self) -> slice:
        """The rows of the batch itself, without memories that the step draws."""
        return slice(self.draws[0].rows.start if self.draws else len(self.output))

    maps: Sequence[torch.Tensor] = ()

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes, without a gradient.

        Args:
            value: For example the number of samples of each class. The shape must be the same in
                every process.
        """
        return total(value)

    def average(self, loss: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Divide a sum of losses by the number of its terms in the whole batch.

        Args:
            loss: Sum over this process's part of the batch, a scalar.
            count: Number of terms in that sum, or the sum of their weights, a scalar.

        Returns:
            This process's contribution to ``_loss``, a scalar. The contributions of all processes,
            weighted by their shares, add up to the total ``loss`` divided by the total ``count``;
            to 0 if the total ``count`` is 0.
        """
        counted = total(count)
        return loss / (torch.where(counted > 0, counted, 1) * self.share)
