"""The forward passes of a method's network and its teacher."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Self

import torch
from torch import nn

from iirc_train.models.inference import (
    Forward,
    heuristic_convolutions,
    in_parts,
    within_memory,
    without_batch_norms,
)


class Networks(nn.Module):
    """A network and its teacher.

    Attributes:
        net: The network, which returns ``(output, latent)`` for images.
        old_net: A frozen copy of the network from before the current task, for methods that distil
            from it; None for others.
        autocast_dtype: Type that the network computes in, for example ``torch.bfloat16``; None for
            the type of its parameters. Losses are computed in float32.
    """

    net: nn.Module
    old_net: nn.Module | None
    _wrapper: nn.Module | None
    _teacher_wrapper: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("net", None)
        self.register_module("old_net", None)
        self.autocast_dtype: torch.dtype | None = None
        self._infer: Forward | None = None
        self.train_through(None)

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters."""
        return next(self.net.parameters()).device

    def forward_net(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output (N, classes) and latent (N, D) of the network for images."""
        if self._infer is not None:
            return self._infer(x)
        return self._run(self._trained_net if torch.is_grad_enabled() else self.net, x)

    def forward_old_net(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the teacher's output and latent, without gradients; see :meth:`forward_net`."""
        assert self.old_net is not None
        wrapper = self._teacher_wrapper
        with torch.no_grad():
            return self._run(self.old_net if wrapper is None else wrapper, x)

    def _run(self, net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.autocast_dtype is None:
            output, latent = net(x)
            return output, latent
        with torch.autocast(x.device.type, self.autocast_dtype):
            output, latent = net(x)
        return output.float(), latent.float()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """A context in which :meth:`forward_net` is faster; outputs are the same up to rounding.

        The method is in evaluation mode and records no gradients, and the network must not change.
        Contexts can be nested; only the outermost does the preparation.
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
                with _faster(forward, net is not self.net, self.device) as self._infer:
                    yield
        finally:
            self._infer = None
            self.train(was_training)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """A context that computes in the type of the parameters, for results that are kept."""
        before, self.autocast_dtype = self.autocast_dtype, None
        try:
            yield
        finally:
            self.autocast_dtype = before

    def train_through(self, wrapper: nn.Module | None, teacher: nn.Module | None = None) -> None:
        """Make training steps call the network and its teacher through wrappers.

        Call again after each ``prepare_model_for_new_task``, which may change the networks, and
        removes the wrappers.

        Args:
            wrapper: For example ``DistributedDataParallel(net)``; None for the network itself.
            teacher: A wrapper of ``old_net``; None for ``old_net`` itself.
        """
        # do not register the networks a second time
        object.__setattr__(self, "_wrapper", wrapper)
        object.__setattr__(self, "_teacher_wrapper", teacher)

    @property
    def modules_of_step(self) -> tuple[nn.Module | None, ...]:
        """The network, its teacher, and the wrappers through which training steps call them."""
        return self.net, self.old_net, self._wrapper, self._teacher_wrapper

    @property
    def _trained_net(self) -> nn.Module:
        return self.net if self._wrapper is None else self._wrapper

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; the teacher always stays in evaluation mode."""
        super().train(mode)
        if self.old_net is not None:
            self.old_net.eval()
        return self


@contextmanager
def _faster(forward: Forward, is_folded: bool, device: torch.device) -> Iterator[Forward]:
    if device.type == "cuda":
        with heuristic_convolutions():
            yield within_memory(forward)
    elif is_folded:
        with in_parts(forward) as forward_all:
            yield forward_all
    else:
        yield forward


def copy_freeze(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode, whose parameters do not require gradients."""
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen
