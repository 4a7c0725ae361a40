"""ResNets for 32 x 32 images.

He et al., "Deep residual learning for image recognition" (CVPR 2016), section 4.2, with initial
weights as in the published IIRC code: Kaiming's normal distribution, with gain √2 for
convolutions and 1 for the output layer.
"""

from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from iirc_data.errors import ConfigurationError

WIDTHS = (16, 32, 64)

Shortcut = Literal["A", "B"]


class ResNetCIFAR(nn.Module):
    """A ResNet for images of CIFAR's size.

    Args:
        num_classes: Number of outputs.
        num_layers: Number of layers, 6 n + 2: 20, 32, 44, 56, 110, …
        relu_last_hidden: Apply a ReLU after the last block, as the paper does, so that the latent
            is not negative. The published IIRC code omits it.
        shortcut: The shortcut of a block that changes the shape. ``"A"``, as in the paper, takes
            every second pixel and appends channels of zeros; it has no parameters. ``"B"``, as in
            the published IIRC code, is a 1 x 1 convolution with batch normalisation.

    Raises:
        ConfigurationError: ``num_layers`` is not of the form 6 n + 2.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_layers: int = 20,
        relu_last_hidden: bool = False,
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__()
        blocks, rest = divmod(num_layers - 2, 6)
        if rest or blocks < 1:
            raise ConfigurationError(
                f"ResNetCIFAR: num_layers must be 6 n + 2 (20, 32, 44, 56, …), got {num_layers}"
            )
        self.model = _Layers(blocks, num_classes, relu_last_hidden, shortcut)

    @property
    def trunk(self) -> nn.Module:
        """Computes the latent from images."""
        return self.model

    def forward(self, input_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, num_classes) and latent (N, 64) of images (N, 3, H, W)."""
        latent = self.model(input_)
        return self.model.output_layer(latent), latent

    def latent_and_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the latent, and the output of each of the three stages before its last ReLU."""
        return self.model.latent_and_maps(images)

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each of the three stages, (N, C, H, W) each."""
        return self.model.feature_maps(images)


class _Layers(nn.Module):
    def __init__(
        self, blocks: int, num_classes: int, relu_last_hidden: bool, shortcut: Shortcut
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        stages = []
        for stage, width in enumerate(WIDTHS):
            for number in range(blocks):
                first = number == 0 and stage > 0
                last = number == blocks - 1 and stage == len(WIDTHS) - 1
                stages.append(
                    _Block(
                        WIDTHS[stage - 1] if first else width,
                        width,
                        stride=2 if first else 1,
                        relu=relu_last_hidden or not last,
                        shortcut=shortcut,
                    )
                )
        self.blocks = nn.Sequential(*stages)
        self.ends_with_relu = relu_last_hidden
        self.output_layer = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.kaiming_normal_(self.output_layer.weight, nonlinearity="sigmoid")  # gain 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.blocks(F.relu(self.norm(self.conv(images)), inplace=True))
        return hidden.mean(dim=(2, 3))

    def latent_and_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        maps = self._sums(images)
        hidden = F.relu(maps[-1]) if self.ends_with_relu else maps[-1]
        return hidden.mean(dim=(2, 3)), maps

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        *first, last = self._sums(images)
        return [*map(F.relu, first), F.relu(last) if self.ends_with_relu else last]

    def _sums(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each stage before its last ReLU."""
        hidden = F.relu(self.norm(self.conv(images)), inplace=True)
        sums: list[torch.Tensor] = []
        per_stage = len(self.blocks) // len(WIDTHS)
        for number, block in enumerate(cast("Iterable[_Block]", self.blocks), 1):
            if number % per_stage:
                hidden = block(hidden)
                continue
            sums.append(block.sum(hidden))
            if number < len(self.blocks):
                hidden = F.relu(sums[-1])
        return sums


class _Subsampled(nn.Module):
    """The shortcut of option A."""

    def __init__(self, n_zero_channels: int, stride: int) -> None:
        super().__init__()
        self.n_zero_channels = n_zero_channels
        self.stride = stride

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        pixels = hidden[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, 0, self.n_zero_channels))


class _Block(nn.Module):
    def __init__(
        self, width_in: int, width: int, stride: int, relu: bool, shortcut: Shortcut
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or width_in != width:
            self.shortcut = (
                _Subsampled(width - width_in, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
                )
            )
        self.relu = relu

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        out = self.sum(hidden)
        return F.relu(out, inplace=True) if self.relu else out

    def sum(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the output before the last ReLU."""
        out = F.relu(self.norm1(self.conv1(hidden)), inplace=True)
        return self.norm2(self.conv2(out)).add_(self.shortcut(hidden))  # type: ignore[no-any-return]
