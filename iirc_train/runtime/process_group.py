"""The process group of a run: how its processes find each other, and what ends when one dies."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from iirc_data.errors import TrainingError
from iirc_train.runtime.distributed import rank

LONGEST_WAIT = timedelta(hours=2)
"""How long a process waits for the others. The first one commits memories and writes checkpoints
alone, which may exceed NCCL's 10 minutes; ``torchrun`` ends the others of a process that died."""

_POLL_SECONDS = 0.02


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Initialize the process group inside the block if ``torchrun`` started this process.

    Args:
        device: Device of the network: NCCL connects GPUs, Gloo connects CPUs.

    Raises:
        TrainingError: Another process ended or does not answer.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    store, number, n = next(rendezvous("env://", timeout=LONGEST_WAIT))
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=of_this_attempt(store, number, n),
        rank=number,
        world_size=n,
        timeout=LONGEST_WAIT,
        device_id=device if on_gpu else None,
    )
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise TrainingError(
            f"process {rank()} lost the connection to another process of the run, which was killed "
            f"or printed another error: {_cause(error)}. The same command resumes the run"
        ) from error
    # not after an error: NCCL would wait for processes that have not failed
    dist.destroy_process_group()


def of_this_attempt(store: Store, number: int, n: int) -> Store:
    """Return a part of a store in which no earlier attempt of a restarted run has left keys.

    The store of ``torchrun`` survives its restarts, and so do the addresses of processes that have
    ended. Restarts are counted on each machine by itself, so a count cannot tell attempts apart.

    Each process offers a random word, and the first one answers it with the word of the attempt.
    It may answer the offer of an ended process, which does not confirm it.

    Args:
        store: The store; all processes must call this function.
        number: Rank of this process.
        n: Number of processes.

    Raises:
        TrainingError: Another process does not start in time.
    """
    word = secrets.token_hex(8)
    if number > 0:
        store.set(f"offer/{number}", word)
        attempt = store.get(f"answer/{word}").decode()
        store.set(f"{attempt}/confirmed/{number}", "")
        return PrefixStore(attempt, store)
    missing = list(range(1, n))
    deadline = time.monotonic() + LONGEST_WAIT.total_seconds()
    while missing := [k for k in missing if not store.check([f"{word}/confirmed/{k}"])]:
        for k in missing:
            if store.check([f"offer/{k}"]):
                store.set(f"answer/{store.get(f'offer/{k}').decode()}", word)
        if time.monotonic() > deadline:
            raise TrainingError(f"process {missing[0]} of {n} has not started: see its output")
        time.sleep(_POLL_SECONDS)
    return PrefixStore(word, store)


def _is_of_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo/" in str(error)  # Gloo has no class of errors


def _cause(error: RuntimeError) -> str:
    return str(error).partition(". This is typically")[0]  # Gloo adds general advice
