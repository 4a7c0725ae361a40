"""What a method's loss is computed from."""

from typing import NamedTuple

import torch

from iirc_train.runtime.distributed import total


class Step(NamedTuple):
    """A batch, and the network's output for it.

    With several processes it is this process's part of the batch. A loss that is a mean over
    samples needs nothing of that. A loss with its own normalisation uses :meth:`average` and
    :meth:`total`, and is then the same for any number of processes.

    Attributes:
        output: Logits (N, classes seen).
        latent: Latents (N, D).
        images: (N, 3, H, W).
        targets: Indicator targets, float32 (N, classes seen).
        in_buffer: bool (N,), which samples were replayed.
        share: This process's part, in (0, 1], of the batch that all processes share.
    """

    output: torch.Tensor
    latent: torch.Tensor
    images: torch.Tensor
    targets: torch.Tensor
    in_buffer: torch.Tensor
    share: float = 1.0

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a value over all processes, without a gradient.

        Args:
            value: Any shape, the same in every process: the number of samples of each class, for
                example.
        """
        return total(value)

    def average(self, loss: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Return the loss per counted thing, over the batch of all processes.

        Args:
            loss: Sum of the losses of this process's part, a scalar.
            count: Number of things, or sum of weights, that it is over, a scalar: of pairs, for
                example.

        Returns:
            What the method's loss is to add: its mean over the processes, weighted by their shares,
            is the sum of ``loss`` divided by the sum of ``count``. 0 where there is nothing.
        """
        counted = total(count)
        return loss / (torch.where(counted > 0, counted, 1) * self.share)
