"""The forward passes of a method's network and its teacher."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import ClassVar, Self

import torch
from torch import nn

from iirc_train.models.feature_maps import Forwarded, WithFeatureMaps, forward_with_maps
from iirc_train.models.frozen import keep_frozen
from iirc_train.models.inference import (
    Forward,
    heuristic_convolutions,
    in_parts,
    keeps_nothing,
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

    compares_feature_maps: ClassVar[bool] = False
    """Whether training steps need the feature maps of the network, and of its teacher."""

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

    def forward_net_with_maps(self, x: torch.Tensor) -> Forwarded:
        """Return what :meth:`forward_net` does, and the feature maps of the same pass.

        For methods that set ``compares_feature_maps``, in training.
        """
        wrapper = self._wrapper
        with self._autocast(x.device.type):
            result = forward_with_maps(self.net, x) if wrapper is None else wrapper(x)
        return _in_float32(result)

    def forward_old_net_with_maps(self, x: torch.Tensor) -> Forwarded:
        """Return what :meth:`forward_old_net` does, and the teacher's feature maps."""
        assert self.old_net is not None
        teacher = self.old_net if self._teacher_wrapper is None else self._teacher_wrapper
        with torch.no_grad(), self._autocast(x.device.type):
            result = forward_with_maps(teacher, x)
        return _in_float32(result)

    def _run(self, net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self._autocast(x.device.type):
            output, latent, *_ = net(x)
        if self.autocast_dtype is None:
            return output, latent
        return output.float(), latent.float()

    def _autocast(self, device_type: str) -> AbstractContextManager[object]:
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(device_type, self.autocast_dtype)

    @contextmanager
    def inference(self, example: torch.Tensor | None = None) -> Iterator[None]:
        """A context in which :meth:`forward_net` is faster; outputs are the same up to rounding.

        The method is in evaluation mode and records no gradients, and the network must not change.
        Contexts can be nested; only the outermost does the preparation.

        Args:
            example: See :func:`~iirc_train.models.inference.without_batch_norms`.
        """
        if self._infer is not None:
            yield
            return
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                net = without_batch_norms(self.net, example)
                forward = partial(self._run, net)
                in_threads = net is not self.net and keeps_nothing(self.net)
                with _faster(forward, in_threads, self.device) as self._infer:
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
            wrapper: For example ``DistributedDataParallel(as_called(net))``; None for the network
                itself.
            teacher: A wrapper of ``old_net``; None for ``old_net`` itself.
        """
        # do not register the networks a second time
        object.__setattr__(self, "_wrapper", wrapper)
        object.__setattr__(self, "_teacher_wrapper", teacher)

    def as_called(self, net: nn.Module) -> nn.Module:
        """Return a network as :meth:`train_through` needs it: with feature maps if compared."""
        return WithFeatureMaps(net) if self.compares_feature_maps else net

    @property
    def modules_of_step(self) -> tuple[nn.Module | None, ...]:
        """The network, its teacher, and the wrappers through which training steps call them."""
        return self.net, self.old_net, self._wrapper, self._teacher_wrapper

    @property
    def _trained_net(self) -> nn.Module:
        return self.net if self._wrapper is None else self._wrapper

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; teacher and frozen parts stay in evaluation mode."""
        super().train(mode)
        keep_frozen(self)
        if self.old_net is not None:
            self.old_net.eval()
        return self


@contextmanager
def _faster(forward: Forward, in_threads: bool, device: torch.device) -> Iterator[Forward]:
    if device.type == "cuda":
        with heuristic_convolutions():
            yield within_memory(forward)
    elif in_threads:
        with in_parts(forward) as forward_all:
            yield forward_all
    else:
        yield forward


def _in_float32(result: Forwarded) -> Forwarded:
    output, latent, maps = result
    return output.float(), latent.float(), [each.float() for each in maps]


def copy_freeze(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode, whose parameters do not require gradients."""
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen
