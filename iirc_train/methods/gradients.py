"""A model's gradient as one vector, for methods that change it."""

import torch
from torch import nn


def get_gradient(model: nn.Module) -> torch.Tensor:
    """Return all gradients of a model's trained parameters as one vector, 0 where there is none."""
    return torch.cat(
        [
            (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
    )


def update_gradient(model: nn.Module, new_grad: torch.Tensor) -> None:
    """Overwrite the gradients of a model.

    Args:
        model: The model.
        new_grad: A vector as :func:`get_gradient` gives it.

    Raises:
        ValueError: The vector's length is not the number of the model's trained parameters.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    if new_grad.shape != (sum(sizes),):
        raise ValueError(f"expected a gradient of shape ({sum(sizes)},), got {new_grad.shape}")
    for parameter, gradient in zip(parameters, torch.split(new_grad, sizes), strict=True):
        parameter.grad = gradient.view_as(parameter).clone(memory_format=torch.preserve_format)
