"""The states of the global random generators of PyTorch, NumPy and Python."""

import random
from typing import Any

import numpy as np
import torch

from iirc_train.runtime.distributed import parts_of_all, rank, world_size


def seed_random_generators(seed: int) -> None:
    """Seed the global random generators of PyTorch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """Return the states of the global random generators as tensors and plain values."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    key = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key}},
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the global random generators to a state that :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda_state.cpu(), device)
    key = state["numpy"]["state"]["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": key}})
    random.setstate(state["python"])


def random_states_of_all(device: torch.device) -> list[torch.Tensor]:
    """Return the states of PyTorch's generators of each process, by rank; all must call this.

    Args:
        device: Device of the network; a checkpoint has the generators of the first process only.

    Returns:
        uint8 (bytes,) of each process, on the device.
    """
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [part.clone() for part in parts_of_all(torch.cat(states).to(device))]


def set_own_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    """Set PyTorch's generators of this process, if there is a state for each of several processes.

    Args:
        states: See :func:`random_states_of_all`.
        device: Device of the network.
    """
    if world_size() == 1 or len(states) != world_size():
        return
    state, n = states[rank()], len(torch.get_rng_state())
    torch.set_rng_state(state[:n].cpu())
    if device.type == "cuda" and len(state) > n:
        torch.cuda.set_rng_state(state[n:].cpu(), device)
