"""What processes of one run do together; with one process, nothing.

Everything follows from PyTorch's default process group, which ``torchrun`` asks for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from iirc_data.errors import ConfigurationError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """A context in which the processes that ``torchrun`` started know of each other.

    Args:
        device: Where they compute: NCCL connects GPUs, Gloo processors.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first_process() -> bool:
    """Tell whether this process speaks for the run, even while no process group exists."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``"auto"`` is the GPU where there is one.

    Of several processes on a machine each gets a GPU of its own.

    Raises:
        ConfigurationError: There is no such device.
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
            f"device {name!r} names one GPU for several processes: give cuda, and each has its own"
        )
    number = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device {name!r} asked for, but torch sees {torch.cuda.device_count()} CUDA device(s)"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def wait_for_all() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def total(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of all processes' values, without a gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes' tensors, the first process's first.

    Args:
        rows: (N, ...); N may differ between processes, the rest may not.
    """
    if world_size() == 1:
        return rows
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(length) for length in lengths]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    received = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(received, padded)
    return torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)])


def broadcast_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers: running means of batches, for example."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def share_of(n: int) -> slice:
    """Return this process's part of n things: consecutive, parts as equal as can be."""
    part, rest = divmod(n, world_size())
    start = rank() * part + min(rank(), rest)
    return slice(start, start + part + (rank() < rest))
