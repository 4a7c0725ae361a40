"""Feature maps of a network: the outputs of its stages, from the same pass as its output."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from iirc_data.errors import ConfigurationError

Forwarded = tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]
"""Output (N, classes), latent (N, D) and feature maps, (N, C, ...) each, from first to last."""


def check_has_feature_maps(net: nn.Module, method: str) -> None:
    """Check that a network has feature maps.

    Args:
        net: The network.
        method: Name of the method that needs them.

    Raises:
        ConfigurationError: It has no ``latent_and_maps`` and names no stages, or names a module
            that it does not have.
    """
    if hasattr(net, "latent_and_maps"):
        return
    names = _stage_names(net)
    if not names:
        raise ConfigurationError(
            f"method {method} compares feature maps, but {type(net).__name__} names no stages: "
            "list the names of its submodules in an attribute 'stages', or choose a ResNet"
        )
    known = dict(net.named_modules())
    if missing := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"{type(net).__name__}.stages names {', '.join(map(repr, missing))}, but the network "
            "has no such submodule"
        )


def forward_with_maps(net: Any, images: torch.Tensor) -> Forwarded:
    """Run a network once, and return its feature maps too.

    Args:
        net: A network that passes :func:`check_has_feature_maps`.
        images: (N, 3, H, W).

    Raises:
        ConfigurationError: An operation after a named stage overwrites its output.
    """
    compiled: Callable[[torch.Tensor], Forwarded] | None = getattr(net, "forward_with_maps", None)
    if compiled is not None:
        return compiled(images)
    if hasattr(net, "latent_and_maps"):
        latent, maps = net.latent_and_maps(images)
        return net.model.output_layer(latent), latent, maps
    return _with_stage_outputs(net, images)


class WithFeatureMaps(nn.Module):
    """Calls a network so that it returns its feature maps too.

    Args:
        net: The network, or a wrapper of it.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> Forwarded:
        """Return output, latent and feature maps of images (N, 3, H, W)."""
        return forward_with_maps(self.net, images)


def _stage_names(net: nn.Module) -> Sequence[str]:
    return tuple(getattr(net, "stages", ()))


def _with_stage_outputs(net: nn.Module, images: torch.Tensor) -> Forwarded:
    maps: list[torch.Tensor] = []
    versions: list[int] = []

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        maps.append(output)
        versions.append(output._version)

    names = _stage_names(net)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(net.get_submodule(name).register_forward_hook(keep))
        output, latent = net(images)
    for name, stage, version in zip(names, maps, versions, strict=True):
        if stage._version != version:
            raise ConfigurationError(
                f"{type(net).__name__} overwrites the output of its stage {name!r}: use "
                "inplace=False in the operation that follows it"
            )
    return output, latent, maps
