"""Prompts: small modules that change what a stage of a network gets, while the network stays."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.models.trunk import trunk_of


class _Before:
    """A hook that calls a prompt; an object, so that a copy of the network calls its own prompt."""

    def __init__(self, prompt: nn.Module) -> None:
        self.prompt = prompt
        self.is_on = True

    def __call__(self, stage: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self.is_on:
            return None
        first, *others = inputs
        return (self.prompt(first), *others)


def attach_prompt(net: nn.Module, name: str, prompt: nn.Module, before: str = "") -> None:
    """Let a prompt change the input of a stage: add tokens, or transform images.

    The prompt becomes the submodule ``net.prompts.NAME``. So it is trained even if the network is
    frozen, checkpoints contain it, and copies of the network have a copy of it.

    Args:
        net: The network; modified in place.
        name: Name of the prompt, without dots; an earlier prompt of that name is replaced.
        prompt: Maps the first input of the stage to the one that it gets instead, both tensors: for
            example tokens (N, T, D) to (N, T + P, D). It is moved to the network's device.
        before: Name of the stage in the network's trunk, such as ``blocks`` of a vision transformer
            of timm or ``encoder.layers`` of torchvision; by default the trunk, which gets images
            (N, 3, H, W).

    Raises:
        ConfigurationError: The network has no such stage.
    """
    trunk = trunk_of(net) or net
    try:
        stage = trunk.get_submodule(before)
    except AttributeError as error:
        raise ConfigurationError(
            f"{type(net).__name__} has no stage {before!r} for the prompt {name!r} ({error})"
        ) from error
    detach_prompt(net, name)
    if not hasattr(net, "prompts"):
        net.prompts = nn.ModuleDict()
    cast(nn.ModuleDict, net.prompts)[name] = prompt.to(next(net.parameters()).device)
    stage.register_forward_pre_hook(_Before(prompt))


def detach_prompt(net: nn.Module, name: str) -> None:
    """Remove a prompt; without one of that name, do nothing."""
    prompts = prompts_of(net)
    if name not in prompts:
        return
    removed = prompts[name]
    del cast(nn.ModuleDict, net.prompts)[name]
    for module in net.modules():
        hooks = module._forward_pre_hooks
        for key in [k for k, hook in hooks.items() if getattr(hook, "prompt", None) is removed]:
            del hooks[key]


def prompts_of(net: nn.Module) -> dict[str, nn.Module]:
    """Return the prompts of a network by name."""
    return dict(cast(nn.ModuleDict, net.prompts).items()) if hasattr(net, "prompts") else {}


@contextmanager
def without_prompts(net: nn.Module) -> Iterator[None]:
    """A context in which a network computes without its prompts, for example to choose among them.

    Args:
        net: The network.
    """
    hooks = [
        hook
        for module in net.modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, _Before)
    ]
    before = [hook.is_on for hook in hooks]
    for hook in hooks:
        hook.is_on = False
    try:
        yield
    finally:
        for hook, was_on in zip(hooks, before, strict=True):
            hook.is_on = was_on


class TokenPrompt(nn.Module):
    """Learnable tokens that follow those of an image.

    Args:
        n_tokens: Number of tokens.
        size: Size of a token, D.
    """

    def __init__(self, n_tokens: int, size: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(n_tokens, size))
        nn.init.trunc_normal_(self.tokens, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (N, T + n_tokens, D) of tokens (N, T, D)."""
        own = self.tokens.to(tokens.dtype).expand(len(tokens), -1, -1)
        return torch.cat((tokens, own), dim=1)
