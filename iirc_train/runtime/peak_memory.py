"""How much memory this process has taken at most."""

import sys

import torch


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has held so far.

    Args:
        device: Where it computes.

    Returns:
        ``peak_memory_bytes``, the largest resident set, on systems that tell it (not Windows);
        on a GPU ``peak_gpu_memory_bytes`` too, the most that PyTorch's tensors took there.
    """
    peaks = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peaks["peak_memory_bytes"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return peaks
