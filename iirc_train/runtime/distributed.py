"""Communication between the processes of one run; with one process, every function is local.

The processes are those of PyTorch's default process group, which ``torchrun`` requests.
"""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from iirc_data.errors import ConfigurationError

_BATCH_NORMS = {_BatchNorm.forward, SyncBatchNorm.forward}


def rank() -> int:
    """Return the rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first_process() -> bool:
    """Return whether this is the first process of the run, even outside a process group."""
    return int(os.environ.get("RANK", "0")) == 0


def has_launcher() -> bool:
    """Return whether a launcher started several processes of the run, even outside a group."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def world_size() -> int:
    """Return the number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def choose_device(name: str) -> torch.device:
    """Return a device by name; ``"auto"`` is the GPU if there is one, else the CPU.

    With several processes on a machine, each gets its own GPU.

    Raises:
        ConfigurationError: The device does not exist or is not supported.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"unknown device {name!r}: give cpu, cuda or auto") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigurationError(f"device {name!r} is not supported: give cpu, cuda or auto")
    if device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError(
            f"device {name!r} is one GPU for several processes: give cuda, so each gets its own"
        )
    number = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device {name!r} does not exist: torch sees {torch.cuda.device_count()} CUDA device(s)"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    if world_size() > 1:
        dist.barrier()


def of_first_process(number: int, device: torch.device) -> int:
    """Return the number that the first process passes, for decisions that all must share.

    Args:
        number: Ignored in the other processes.
        device: Device of the network.
    """
    if world_size() == 1:
        return number
    shared = torch.tensor(number, device=device)
    dist.broadcast(shared, 0)
    return int(shared)


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag whether it is set in any process.

    Args:
        flags: The flags of this process; all processes pass the same number.
        device: Device of the network.
    """
    if world_size() == 1:
        return list(flags)
    counts = total(torch.tensor(flags, dtype=torch.float32, device=device))
    return [count > 0 for count in counts.tolist()]


def total(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, detached from the graph."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def largest(value: float, device: torch.device) -> float:
    """Return the largest of a value that each process has.

    Args:
        value: This process's value.
        device: Device of the processes' network.
    """
    if world_size() == 1:
        return value
    values = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return float(values)


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all processes, in order of rank.

    Args:
        rows: (N, ...); only N may differ between processes.
    """
    return rows if world_size() == 1 else torch.cat(parts_of_all(rows))


def parts_of_all(rows: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows of each process, in order of rank.

    Args:
        rows: (N, ...); only N may differ between processes.
    """
    if world_size() == 1:
        return [rows]
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(length) for length in lengths]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    received = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(received, padded)
    return [part[:size] for part, size in zip(received, sizes, strict=True)]


def averaging_gradients(
    net: nn.Module, device: torch.device, *, is_equal: bool = False
) -> DistributedDataParallel:
    """Wrap a network so that a backward pass averages its gradients over all processes.

    The running statistics of batch normalisation then differ between processes, because training
    does not read them. Call :func:`broadcast_buffers` before they are read.

    Args:
        net: The network, with the same structure in all processes.
        device: Device of the network.
        is_equal: All processes have the same parameters, so none are sent.
    """
    devices = [device] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        net, devices, gradient_as_bucket_view=True, init_sync=not is_equal
    )
    # the attribute, because torch 2.13 renames the argument; buffers are still sent here, once
    wrapped.broadcast_buffers = training_reads_buffers(net)
    return wrapped


def training_reads_buffers(net: nn.Module) -> bool:
    """Return whether the output of a network in training mode may depend on its buffers.

    It does not if only PyTorch's batch normalisation has buffers. In evaluation mode, as in a
    frozen layer, batch normalisation reads its statistics and does not change them.
    """
    return any(
        type(module).forward not in _BATCH_NORMS
        for module in net.modules()
        if next(module.buffers(recurse=False), None) is not None
    )


def broadcast_buffers(module: nn.Module) -> None:
    """Copy the buffers of the first process's module, such as running means, to all processes.

    One message per dtype contains all its buffers.
    """
    if world_size() == 1:
        return
    with torch.no_grad():
        for dtype in dict.fromkeys(buffer.dtype for buffer in module.buffers()):
            buffers = [buffer for buffer in module.buffers() if buffer.dtype == dtype]
            message = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(message, 0)
            parts = torch.split(message, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view(buffer.shape))


def share_of(n: int) -> slice:
    """Return the slice of n items for this process: contiguous, sizes differ by at most 1."""
    part, rest = divmod(n, world_size())
    start = rank() * part + min(rank(), rest)
    return slice(start, start + part + (rank() < rest))
