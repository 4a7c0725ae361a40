"""ResNets for images of ImageNet's size, from torchvision."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.config.network import IMAGENET_DEPTHS


class ResNet(nn.Module):
    """A ResNet of He et al., "Deep residual learning for image recognition" (CVPR 2016).

    Args:
        num_classes: Number of outputs.
        num_layers: Number of layers: 18, 34, 50, 101 or 152.
        stem: The first layers. ``"imagenet"``: a 7 x 7 convolution and max pooling, which together
            divide height and width by 4. ``"cifar"``: a 3 x 3 convolution, which keeps them.

    Raises:
        ConfigurationError: ``num_layers`` is not one of these numbers.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_layers: int = 18,
        stem: Literal["imagenet", "cifar"] = "imagenet",
    ) -> None:
        super().__init__()
        if num_layers not in IMAGENET_DEPTHS:
            raise ConfigurationError(
                f"ResNet: num_layers must be one of {IMAGENET_DEPTHS}, got {num_layers}"
            )
        # imported here because the import is slow and only this network needs it
        from torchvision import models

        self.model = getattr(models, f"resnet{num_layers}")(weights=None)
        if stem == "cifar":
            self.model.conv1 = nn.Conv2d(3, self.model.conv1.out_channels, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.model.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.model.maxpool = nn.Identity()
        self.model.output_layer = nn.Linear(self.model.fc.in_features, num_classes)
        self.model.fc = nn.Identity()

    @property
    def trunk(self) -> nn.Module:
        """Computes the latent from images."""
        trunk: nn.Module = self.model
        return trunk

    def forward(self, input_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, num_classes) and latent (N, 512 or 2048) of images (N, 3, H, W)."""
        latent = self.model(input_)
        return self.model.output_layer(latent), latent

    def latent_and_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the latent, and the output of each of the four stages before its last ReLU."""
        return latent_and_maps(self.model, images)

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each of the four stages, (N, C, H, W) each."""
        return [F.relu(before) for before in latent_and_maps(self.model, images)[1]]


def latent_and_maps(model: Any, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the latent of a ResNet of torchvision, and each stage's output before its last ReLU.

    Args:
        model: A ``torchvision.models.ResNet`` whose last layer is an ``nn.Identity``.
        images: (N, 3, H, W).
    """
    hidden = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    maps = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage[:-1]:
            hidden = block(hidden)
        maps.append(_before_relu(stage[-1], hidden))
        hidden = F.relu(maps[-1])
    return torch.flatten(model.avgpool(hidden), 1), maps


def _before_relu(block: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return the output of a BasicBlock or Bottleneck of torchvision before its last ReLU."""
    out = block.relu(block.bn1(block.conv1(hidden)))
    out = block.bn2(block.conv2(out))
    if hasattr(block, "conv3"):
        out = block.bn3(block.conv3(block.relu(out)))
    shortcut = hidden if block.downsample is None else block.downsample(hidden)
    return out.add_(shortcut)  # type: ignore[no-any-return]
