"""Selection of memories, as pure functions."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def herding(latents: torch.Tensor, n: int) -> NDArray[np.int64]:
    """Choose exemplars whose running mean approximates the class mean, most important first.

    Rebuffi et al., "iCaRL: Incremental classifier and representation learning" (CVPR 2017),
    algorithm 4. Latents are first scaled to unit length.

    Args:
        latents: float (N, D), one row per sample of the class.
        n: Number of exemplars; if larger than N, all samples are chosen.

    Returns:
        Distinct row numbers in the order of choice, int64 (min(n, N),).
    """
    features = F.normalize(latents.detach().double().cpu(), dim=1)
    mean = features.mean(dim=0)
    total = torch.zeros_like(mean)
    left = torch.ones(len(features), dtype=torch.bool)
    chosen: list[int] = []
    for number in range(1, min(n, len(features)) + 1):
        distance = torch.linalg.vector_norm(mean - (total + features) / number, dim=1)
        index = int(distance.masked_fill(~left, torch.inf).argmin())
        chosen.append(index)
        left[index] = False
        total += features[index]
    return np.array(chosen, np.int64)
