"""A network whose trunk is the identity, for batches of features that a frozen trunk computed."""

import hashlib

import numpy as np
import torch
from torch import nn

from iirc_data.files import canonical_json
from iirc_train.models.trunk import head_of


class HeadOnFeatures(nn.Module):
    """The output layer of a network; its latent is its input.

    Args:
        net: The network, from which the output layer is taken over.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.output_layer = head_of(net)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, D) of features (N, D)."""
        return self.model.output_layer(features), features  # type: ignore[operator]


def trunk_digest(net: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers of a network but its output layer's."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        if not name.startswith("model.output_layer."):
            array = value.detach().cpu().contiguous()
            digest.update(canonical_json([name, str(array.dtype), list(array.shape)]))
            digest.update(np.ascontiguousarray(array.reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()
