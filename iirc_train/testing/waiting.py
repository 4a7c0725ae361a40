"""Finds operations that make the host wait for the GPU, without a GPU."""

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from iirc_train.methods.base_method import BaseMethod
from iirc_train.testing.made_up import N_CLASSES, MadeUpRun

_ATEN = torch.ops.aten
_PUTS = (_ATEN.index_put.default, _ATEN.index_put_.default)
_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class WaitsForDeviceError(AssertionError):
    """An operation waits for the device, or mixes devices."""


def check_never_waits(
    model: type[BaseMethod],
    make_network: Callable[[int], nn.Module] | None = None,
    *,
    autocast_dtype: torch.dtype | None = None,
    **settings: Any,
) -> None:
    """Check that no training step or prediction of a method waits for the GPU.

    The steps of three tasks and their stages, with memories, run on fake tensors of a CUDA device
    (``FakeTensorMode``), which have shapes but no values: forward passes, loss, optimizer,
    metrics, and prediction both during and after a task. Gradients are made up, because
    differentiation on a CUDA device needs a real one. The start and the end of a task may copy
    between devices, but may not depend on values.

    Args:
        model: The method's class.
        make_network: Makes a network with the given number of outputs. By default, the network is
            the one that the settings name, with 8 layers.
        autocast_dtype: Type that the network computes in; see
            :class:`~iirc_train.methods.base_method.BaseMethod`.
        **settings: Settings of the method.

    Raises:
        WaitsForDeviceError: An operation reads a value (``item()``, ``bool()``, ``tolist()``),
            has a shape that depends on values (``nonzero()``, an index of booleans), copies between
            host and device, or mixes devices. The message names the operation and the line.
    """
    with (
        FakeTensorMode(),
        patch.object(nn.Module, "_apply", _apply),
        patch.object(FakeTensor, "__deepcopy__", _deepcopy),
        patch("torch.autograd.backward", _backward),
        patch("torch.autograd.grad", _grad),
        # autocast asks for a GPU before it casts for one
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda: True),
    ):
        with torch.device("cuda"):
            net = None if make_network is None else make_network(N_CLASSES)
            run = MadeUpRun(model, net, device="cuda", **settings)
        run.method.autocast_dtype = autocast_dtype
        for _ in run.method.n_cla_per_tsk:
            batch = run.begin_task()
            with _nothing_waits():
                run.train(batch)
                run.train(batch)  # now the optimizer has a state
                run.evaluate(batch)
            for _ in run.stages():
                with _nothing_waits():
                    run.train(batch)
                    run.train(batch)
                    run.evaluate(batch)
            run.end_task()
            with _nothing_waits():
                run.evaluate(batch)


_DEVICES_DIFFER = re.compile("on the same device|two different devices")  # the latter: torch 2.11


@contextmanager
def _nothing_waits() -> Iterator[None]:
    try:
        with _Watch():  # type: ignore[no-untyped-call]
            yield
    except DataDependentOutputException as error:
        raise _waits(f"{error.func} reads a value from the device", error) from None
    except DynamicOutputShapeException as error:
        raise _waits(f"{error.func} returns a shape that depends on values", error) from None
    except RuntimeError as error:
        if not _DEVICES_DIFFER.search(str(error)):
            raise
        raise _waits(str(error), error) from None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises an error for waiting that fake tensors allow: copies, and indices of booleans."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is _ATEN._to_copy.default and not kwargs.get("non_blocking"):
            _check_copy(func, args[0], result)
        elif func is _ATEN.copy_.default and not any(args[2:]):
            _check_copy(func, args[1], result)
        elif func is _ATEN.index.Tensor or func in _PUTS:
            indices = [index for index in args[1] if index is not None]
            if not all(index.device == args[0].device for index in indices):
                raise _waits(f"{func} copies its indices from the host")
            # where an index of booleans is true, a single value is filled in without waiting
            is_fill = func in _PUTS and args[2].dim() == 0
            if any(index.dtype == torch.bool for index in indices) and not is_fill:
                raise _waits(f"{func} with an index of booleans counts them on the host")
        return result


def _check_copy(func: object, source: torch.Tensor, result: torch.Tensor) -> None:
    if source.device.type != result.device.type:
        raise _waits(f"{func} copies from {source.device.type} to {result.device.type}")


def _waits(what: str, error: Exception | None = None) -> WaitsForDeviceError:
    """Return the error for an operation, with the innermost line outside torch and this package."""
    stack = (
        traceback.extract_stack() if error is None else traceback.extract_tb(error.__traceback__)
    )
    theirs = [frame for frame in stack if not frame.filename.startswith(_NOT_THEIRS)]
    where = f"{theirs[-1].filename}:{theirs[-1].lineno}: {theirs[-1].line}: " if theirs else ""
    return WaitsForDeviceError(f"{where}{what}")


def _backward(tensors: torch.Tensor, *_: Any, **__: Any) -> None:
    """Give every parameter that a tensor depends on a gradient, as differentiation would."""
    found, left = set(), [tensors.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in found:
            continue
        found.add(node)
        left += [function for function, _ in node.next_functions]
        parameter = getattr(node, "variable", None)  # of an AccumulateGrad
        if parameter is not None:
            gradient = torch.empty_like(parameter)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _grad(
    outputs: Any, inputs: torch.Tensor | Sequence[torch.Tensor], *_: Any, **__: Any
) -> tuple[torch.Tensor, ...]:
    """Return a gradient for every input, as differentiation would."""
    each = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    return tuple(torch.empty_like(tensor) for tensor in each)


def _apply(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """Do what ``nn.Module._apply`` does; that refuses fake tensors."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                with torch.no_grad():
                    changed = function(parameter)
                if changed is not parameter:
                    part._parameters[name] = nn.Parameter(changed, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = function(buffer)
    return module


def _deepcopy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """Do what ``Tensor.__deepcopy__`` does; that copies the mode of fake tensors, too."""
    copied = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        copied = nn.Parameter(copied, tensor.requires_grad)
    memo[id(tensor)] = copied
    return copied
