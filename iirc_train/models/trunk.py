"""The trunk of a network: the part that computes the latent."""

from torch import nn


def trunk_of(net: nn.Module) -> nn.Module | None:
    """Return the part of a network that computes the latent; None if the network names none."""
    trunk = getattr(net, "trunk", None)
    return trunk if isinstance(trunk, nn.Module) else None


def head_of(net: nn.Module) -> nn.Module:
    """Return the output layer of a network."""
    layer: nn.Module = net.model.output_layer  # type: ignore[union-attr,assignment]
    return layer


def head_modules(net: nn.Module) -> set[int]:
    """Return the identities of the output layer of a network and of all its submodules."""
    return {id(module) for module in head_of(net).modules()}
