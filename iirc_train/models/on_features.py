"""A network whose trunk is the identity, for batches of features that a frozen trunk computed."""

import torch
from torch import nn

from iirc_train.models.trunk import head_of
from iirc_train.models.weights import remembered_digest


class HeadOnFeatures(nn.Module):
    """The output layer of a network; its latent is its input.

    Args:
        net: The network, from which the output layer is taken over.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.output_layer = head_of(net)
        if (digest := remembered_digest(net)) is not None:
            self.weights_digest = digest

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, D) of features (N, D)."""
        return self.model.output_layer(features), features  # type: ignore[operator]
