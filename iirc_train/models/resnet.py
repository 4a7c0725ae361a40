"""ResNets for images of ImageNet's size, from torchvision."""

import torch
from torch import nn

from iirc_data.errors import ConfigurationError

DEPTHS = (18, 34, 50, 101, 152)


class ResNet(nn.Module):
    """A ResNet of He et al., "Deep residual learning for image recognition" (CVPR 2016).

    Args:
        num_classes: Outputs.
        num_layers: 18, 34, 50, 101 or 152.

    Raises:
        ConfigurationError: There is no such depth.
    """

    def __init__(self, num_classes: int = 10, num_layers: int = 18) -> None:
        super().__init__()
        if num_layers not in DEPTHS:
            raise ConfigurationError(f"ResNet has {DEPTHS} layers, got {num_layers}")
        # importing it takes as long as importing torch, and only this network needs it
        from torchvision import models

        self.model = getattr(models, f"resnet{num_layers}")(weights=None)
        self.model.output_layer = nn.Linear(self.model.fc.in_features, num_classes)
        self.model.fc = nn.Identity()

    def forward(self, input_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, num_classes) and latent (N, 512 or 2048) of images (N, 3, H, W)."""
        latent = self.model(input_)
        return self.model.output_layer(latent), latent
