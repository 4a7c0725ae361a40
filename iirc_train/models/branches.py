"""Networks that grow: feature extractors side by side, and a head over all their latents."""

import copy
from collections.abc import Iterable
from typing import Self, cast

import torch
from torch import nn

from iirc_train.models.frozen import keep_frozen


class BranchedNetwork(nn.Module):
    """Feature extractors (*branches*) side by side; the latent is that of all branches in a row.

    Only the last branch learns. The others are frozen: their parameters need no gradient, and they
    stay in evaluation mode, so that batch normalisation keeps its statistics.

    Args:
        net: Any network with a linear layer ``net.model.output_layer``; it becomes the first branch
            and loses that layer.
        n_classes: Number of outputs of the new output layer.

    Attributes:
        branches: The feature extractors, oldest first.
        latent_size: Size of the latent of one branch.
        auxiliary_head: A second output layer, over the latent of the last branch alone, if a method
            adds one.
        old_head: The output layer of the previous task, frozen, if a method adds it.
    """

    auxiliary_head: nn.Linear
    old_head: nn.Linear

    def __init__(self, net: nn.Module, n_classes: int) -> None:
        super().__init__()
        layer = cast(nn.Linear, net.model.output_layer)  # type: ignore[union-attr]
        self.latent_size = layer.in_features
        net.model.output_layer = nn.Identity()  # type: ignore[union-attr]
        self.branches = nn.ModuleList([net])
        self.model = nn.Module()
        self.model.output_layer = nn.Linear(
            self.latent_size, n_classes, device=layer.weight.device, dtype=layer.weight.dtype
        )

    @property
    def head(self) -> nn.Linear:
        """The output layer."""
        return cast(nn.Linear, self.model.output_layer)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, branches x latent_size) of images."""
        latents = [branch(images)[1] for branch in self.branches]
        latent = latents[0] if len(latents) == 1 else torch.cat(latents, dim=1)
        return self.head(latent), latent

    def of_new_branch(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the part of a latent that the last branch computes, (N, latent_size)."""
        return latent[:, -self.latent_size :]

    def of_old_branches(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the part of a latent that the frozen branches compute."""
        return latent[:, : -self.latent_size]

    def grow(self, n_classes: int) -> None:
        """Freeze the branches, add a copy of the last one, and extend the output layer.

        Weights of present outputs for present latents stay; the others are new.

        Args:
            n_classes: Number of outputs afterwards.
        """
        branch = copy.deepcopy(self.branches[-1])
        freeze(self.branches)
        self.branches.append(branch)
        self.model.output_layer = self.new_head(n_classes, len(self.branches), self.head)

    def single(self, number: int, head: nn.Linear) -> "BranchedNetwork":
        """Return a network with a copy of one branch, which learns, and a given output layer."""
        branch = copy.deepcopy(self.branches[number])
        branch.requires_grad_(True)
        keep_frozen(branch)
        branch.model.output_layer = head  # type: ignore[union-attr]
        net = BranchedNetwork(branch, head.out_features)
        net.model.output_layer = head
        return net

    def new_head(
        self, n_classes: int, n_branches: int = 1, head: nn.Linear | None = None
    ) -> nn.Linear:
        """Return a new output layer, on the network's device.

        Args:
            n_classes: Number of outputs.
            n_branches: Number of branches whose latents it takes.
            head: An output layer for fewer outputs or branches, whose weights are taken over.
        """
        like = self.head.weight
        size = n_branches * self.latent_size
        layer = nn.Linear(size, n_classes, device=like.device, dtype=like.dtype)
        if head is not None:
            with torch.no_grad():
                layer.weight[: head.out_features, : head.in_features] = head.weight
                layer.bias[: head.out_features] = head.bias
        return layer

    def with_branches(self, branches: Iterable[nn.Module]) -> Self:
        """Return a network with other branches and the same output layer."""
        other = copy.copy(self)
        other._modules = {**self._modules, "branches": nn.ModuleList(branches)}
        return other

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen branches stay in evaluation mode."""
        super().train(mode)
        self.branches[:-1].eval()
        return self


def freeze(module: nn.Module) -> None:
    """Put a module in evaluation mode, without gradients of its parameters."""
    module.eval().requires_grad_(False)


@torch.no_grad()
def align_new_weights(weight: torch.Tensor, n_old: int) -> None:
    """Scale the weights of new classes so that their mean norm is that of earlier classes.

    Zhao et al., "Maintaining discrimination and fairness in class incremental learning" (CVPR
    2020), section 3.3, equations 8 to 10.

    Args:
        weight: Weights of an output layer, (classes, D); modified in place.
        n_old: Number of earlier classes, which have the first rows.
    """
    norms = weight.norm(dim=1)
    weight[n_old:] *= norms[:n_old].mean() / norms[n_old:].mean()
