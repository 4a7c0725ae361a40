"""The gradient of a model as one vector."""

import torch
from torch import nn


def get_gradient(model: nn.Module) -> torch.Tensor:
    """Return the gradients of all trainable parameters as one vector; 0 for a missing gradient."""
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
        new_grad: A vector with the layout of :func:`get_gradient`.

    Raises:
        ValueError: The vector does not have one element per trainable parameter.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    if new_grad.shape != (sum(sizes),):
        raise ValueError(f"expected a gradient of shape ({sum(sizes)},), got {new_grad.shape}")
    sources = [
        part.view_as(parameter)
        for parameter, part in zip(parameters, torch.split(new_grad, sizes), strict=True)
    ]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    # keep the layout of the parameters: with another one, the optimizer updates them one by one
    together: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
    for parameter, source in zip(parameters, sources, strict=True):
        target = parameter.grad
        assert target is not None
        if target.stride() == source.stride():
            together[0].append(target)
            together[1].append(source)
        else:
            target.copy_(source)
    if together[0]:
        torch._foreach_copy_(*together)
