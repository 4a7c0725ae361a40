"""A toy problem and a network small enough to keep every number of a training run in a file.

Six classes in three tasks, images of 8 x 8 pixels. The images are stored as uint8; the network sees
``uint8 / 128 - 1``, which float32 represents exactly.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CLASSES_PER_TASK = [2, 2, 2]
N_CLASSES = sum(CLASSES_PER_TASK)
N_TRAIN, N_TEST = 12, 4  # images of each class
CHANNELS, WIDTH, LATENT = 4, 6, 6
FILE = Path(__file__).parent / "golden" / "references" / "toy_problem.npz"


class ToyImages(NamedTuple):
    """Images, float32 (N, 3, 8, 8), and classes, int64 (N,); the class of row i is i // 12."""

    train: torch.Tensor
    labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def draw_images(seed: int = 0) -> dict[str, np.ndarray]:
    """Return new images of both sets, uint8 (N, 3, 8, 8): a pattern per class, plus noise."""
    random = np.random.RandomState(seed)
    patterns = random.randint(64, 192, (N_CLASSES, 3, 4, 4)).repeat(2, axis=2).repeat(2, axis=3)

    def drawn(n: int) -> np.ndarray:
        noise = random.randint(-60, 61, (N_CLASSES, n, 3, 8, 8))
        return (patterns[:, None] + noise).reshape(-1, 3, 8, 8).astype(np.uint8)

    return {"train": drawn(N_TRAIN), "test": drawn(N_TEST)}


@cache
def toy_images() -> ToyImages:
    """Return the stored images."""
    with np.load(FILE) as arrays:
        train, test = (torch.tensor(arrays[part]).float() / 128 - 1 for part in ("train", "test"))
    classes = torch.arange(N_CLASSES)
    return ToyImages(
        train, classes.repeat_interleave(N_TRAIN), test, classes.repeat_interleave(N_TEST)
    )


class ToyTrunk(nn.Module):
    """Two convolutions, each with batch normalisation (or without) and a ReLU.

    Its last layer, ``output_layer``, is added by whoever needs one.
    """

    def __init__(self, batch_norm: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(CHANNELS) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(CHANNELS, WIDTH, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(WIDTH) if batch_norm else nn.Identity()

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        first = F.relu(self.norm1(self.conv1(images)))
        return [first, F.relu(self.norm2(self.conv2(first)))]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.feature_maps(images)[-1].mean(dim=(2, 3))


class ToyNetwork(nn.Module):
    """The network as methods of this package use it."""

    def __init__(self, num_classes: int = N_CLASSES, batch_norm: bool = True) -> None:
        super().__init__()
        self.model = ToyTrunk(batch_norm)
        self.model.output_layer = nn.Linear(LATENT, num_classes)

    @property
    def trunk(self) -> nn.Module:
        return self.model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latent = self.model(images)
        return self.model.output_layer(latent), latent

    def latent_and_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        maps = self.model.feature_maps(images)
        return maps[-1].mean(dim=(2, 3)), maps
