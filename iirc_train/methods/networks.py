"""The network that learns and its teacher, and how images go through them."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Self

import torch
from torch import nn

from iirc_train.models.inference import Forward, in_parts, without_batch_norms


class Networks(nn.Module):
    """Runs a network and its teacher, in the precision and the way that are asked for.

    Attributes:
        net: The network, which returns ``(output, latent)`` for images.
        old_net: The network as it was before the current task, for methods that distil from it.
        autocast_dtype: What the network computes in, ``torch.bfloat16`` for example; None for the
            type of its parameters. Losses are computed in float32.
    """

    net: nn.Module
    old_net: nn.Module | None
    _wrapper: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("net", None)
        self.register_module("old_net", None)
        self.autocast_dtype: torch.dtype | None = None
        self._infer: Forward | None = None
        self.train_through(None)

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.net.parameters()).device

    def forward_net(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's output (N, classes) and latent (N, D) for images."""
        if self._infer is not None:
            return self._infer(x)
        return self._run(self._trained_net if torch.is_grad_enabled() else self.net, x)

    def forward_old_net(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the teacher's output and latent, without a gradient; see :meth:`forward_net`."""
        assert self.old_net is not None
        with torch.no_grad():
            return self._run(self.old_net, x)

    def _run(self, net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.autocast_dtype is None:
            output, latent = net(x)
            return output, latent
        with torch.autocast(x.device.type, self.autocast_dtype):
            output, latent = net(x)
        return output.float(), latent.float()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Make :meth:`forward_net` faster, up to rounding, while the network stays as it is.

        Within, the method is in evaluation mode and no gradients are kept. Prepared once where one
        such context is within another.
        """
        if self._infer is not None:
            yield
            return
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                net = without_batch_norms(self.net)
                forward = partial(self._run, net)
                with nullcontext(forward) if net is self.net else in_parts(forward) as self._infer:
                    yield
        finally:
            self._infer = None
            self.train(was_training)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Compute in the type of the parameters: what is kept is not rounded to another type."""
        before, self.autocast_dtype = self.autocast_dtype, None
        try:
            yield
        finally:
            self.autocast_dtype = before

    def train_through(self, wrapper: nn.Module | None) -> None:
        """Let training steps call the network through a wrapper of it.

        Args:
            wrapper: ``DistributedDataParallel`` of ``net``, for example; None for the network
                itself. Call again after each :meth:`prepare_model_for_new_task`.
        """
        object.__setattr__(self, "_wrapper", wrapper)  # the network is no part twice

    @property
    def _trained_net(self) -> nn.Module:
        return self.net if self._wrapper is None else self._wrapper

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.old_net is not None:
            self.old_net.eval()
        return self


def copy_freeze(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters need no gradient, in evaluation mode."""
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen
