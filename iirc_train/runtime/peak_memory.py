"""Peak memory of this process."""

import sys

import torch


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory of this process so far, in bytes.

    Args:
        device: Device of the network.

    Returns:
        ``peak_memory_bytes``, the largest resident set size, except on Windows, which does not
        report it. On a GPU also ``peak_gpu_memory_bytes``, the most that PyTorch's tensors took.
    """
    peaks = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peaks["peak_memory_bytes"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return peaks
