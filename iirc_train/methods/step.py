"""What a method's loss is computed from."""

from typing import NamedTuple

import torch


class Step(NamedTuple):
    """A batch, and what the network says of it.

    Attributes:
        output: Logits (N, classes seen).
        latent: Latents (N, D).
        images: (N, 3, H, W).
        targets: Indicator targets, float32 (N, classes seen).
        in_buffer: bool (N,), which samples were replayed.
    """

    output: torch.Tensor
    latent: torch.Tensor
    images: torch.Tensor
    targets: torch.Tensor
    in_buffer: torch.Tensor
