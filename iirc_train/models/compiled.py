"""Networks compiled by torch.compile: once per run, however many tasks and teachers it has."""

from typing import Any

import torch
from torch import nn

from iirc_train.models.branches import BranchedNetwork
from iirc_train.models.feature_maps import Forwarded, forward_with_maps
from iirc_train.models.trunk import trunk_of


class CompiledNetwork(nn.Module):
    """A network whose trunk runs compiled for full batches; other batches run as they are.

    Args:
        net: The network.
        call: Compiled; calls a module with images, or computes latent and feature maps.
        batch_size: Number of samples of a full batch. A last batch of another size would be
            compiled separately, which takes longer than it can save.
    """

    def __init__(self, net: nn.Module, call: Any, batch_size: int) -> None:
        super().__init__()
        self.net = net
        self._call = call
        self._batch_size = batch_size

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, D) of images (N, 3, H, W)."""
        if len(images) != self._batch_size:
            output, latent = self.net(images)
        elif not (trunks := trunks_of(self.net)):
            output, latent = self._call(self.net, images)
        else:
            latents = [self._call(trunk, images) for trunk in trunks]
            latent = latents[0] if len(latents) == 1 else torch.cat(latents, dim=1)
            output = self.net.model.output_layer(latent)  # type: ignore[union-attr,operator]
        return output, latent

    def forward_with_maps(self, images: torch.Tensor) -> Forwarded:
        """Return output, latent and feature maps of images (N, 3, H, W).

        A network that only names its stages is not compiled.
        """
        if len(images) != self._batch_size or not hasattr(self.net, "latent_and_maps"):
            return forward_with_maps(self.net, images)
        latent, maps = self._call(self.net, images, with_maps=True)
        return self.net.model.output_layer(latent), latent, maps  # type: ignore[union-attr,operator]


class NetworkCompiler:
    """Compiles the trunks of a run's networks.

    The compiled code takes the trunk as an argument, so that the copies of a network that become
    teachers share it. The head, which some methods replace at every task, is not compiled, unless
    the network has no ``trunk``.

    Args:
        batch_size: Number of samples of a full batch.
    """

    def __init__(self, batch_size: int) -> None:
        torch.compiler.reset()  # code of other runs in this process counts towards a limit
        self._batch_size = batch_size
        self._call: Any = torch.compile(_call, dynamic=False)
        self._heads: list[list[torch.Size]] = []

    def compiled(self, net: nn.Module, teacher: nn.Module | None = None) -> list[CompiledNetwork]:
        """Return the network, and its teacher if it has one, with compiled trunks."""
        nets = [net] if teacher is None else [net, teacher]
        heads = [[p.shape for p in n.model.output_layer.parameters()] for n in nets]  # type: ignore[union-attr]
        if not trunks_of(net) and heads[0] not in self._heads:
            torch.compiler.reset()  # code of earlier heads counts towards a limit
        self._heads = heads
        return [CompiledNetwork(n, self._call, self._batch_size) for n in nets]


def trunks_of(net: nn.Module) -> list[nn.Module]:
    """Return the parts of a network that compute its latent, side by side; none if unnamed."""
    branches = net.branches if isinstance(net, BranchedNetwork) else [net]
    trunks = [trunk_of(branch) for branch in branches]
    found = [trunk for trunk in trunks if trunk is not None]
    return found if len(found) == len(trunks) else []


def _call(module: Any, images: torch.Tensor, *, with_maps: bool = False) -> Any:
    return module.latent_and_maps(images) if with_maps else module(images)
