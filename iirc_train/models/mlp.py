"""A multi-layer perceptron, with one output layer or one per task."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from iirc_data.errors import ConfigurationError


class MLP(nn.Module):
    """A multi-layer perceptron with ReLUs.

    Args:
        input_shape: Size or shape of the input, without the batch dimension.
        num_tasks: Number of tasks.
        classes_per_task: Number of classes of each task, or one number for all tasks.
        num_hidden_layers: Number of hidden layers, at least 1.
        hidden_sizes: Width of each hidden layer, or one number for all layers.
        multi_head: Return one output per task instead of one output for all classes.

    Raises:
        ConfigurationError: The number of sizes differs from the number of tasks or layers.
    """

    def __init__(
        self,
        input_shape: int | Sequence[int],
        num_tasks: int,
        classes_per_task: int | Sequence[int],
        num_hidden_layers: int = 1,
        hidden_sizes: int | Sequence[int] = 128,
        multi_head: bool = False,
    ) -> None:
        super().__init__()
        n_inputs = input_shape if isinstance(input_shape, int) else math.prod(input_shape)
        classes = _one_each(classes_per_task, num_tasks, "classes_per_task")
        widths = [n_inputs, *_one_each(hidden_sizes, num_hidden_layers, "hidden_sizes")]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width in pairwise(widths):
            layers += [nn.Linear(width_in, width), nn.ReLU()]
        self.multi_head = multi_head
        self.model = nn.Module()
        self.model.hidden = nn.Sequential(*layers)
        self.model.output_layer = (
            nn.ModuleList(nn.Linear(widths[-1], n) for n in classes)
            if multi_head
            else nn.Linear(widths[-1], sum(classes))
        )

    @property
    def trunk(self) -> nn.Module | None:
        """Computes the latent from images; None with several outputs."""
        return None if self.multi_head else self.model.hidden  # type: ignore[return-value]

    def forward(
        self, input_: torch.Tensor
    ) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor]:
        """Return output (N, classes), or a list with one per task, and latent (N, last width)."""
        latent = self.model.hidden(input_)  # type: ignore[operator]
        if self.multi_head:
            return [head(latent) for head in self.model.output_layer], latent  # type: ignore[union-attr]
        return self.model.output_layer(latent), latent  # type: ignore[operator]


def _one_each(sizes: int | Sequence[int], n: int, name: str) -> list[int]:
    each = [sizes] * n if isinstance(sizes, int) else list(sizes)
    if n < 1 or len(each) != n or min(each) < 1:
        raise ConfigurationError(
            f"{name}: expected {n} (at least 1) positive integers, got {sizes}"
        )
    return each
