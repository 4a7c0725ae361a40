"""Imprinting: weights of new classes from the latents of their samples."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from iirc_train.buffer.latents import class_latents
from iirc_train.buffer.samples import TaskSamples
from iirc_train.methods.base_method import BaseMethod

ITERATIONS = 50
"""Iterations of k-means; a fixed number, so that no value is read from the device."""


def latents_of_new_classes(
    method: BaseMethod, task_data: TaskSamples, n_samples: int, batch_size: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Iterate over the new classes of a task that have samples.

    Args:
        method: Computes the latents.
        task_data: The task's data.
        n_samples: Number of samples of each class, the first ones; -1 for all.
        batch_size: Samples per batch.

    Yields:
        Number of the class among the new ones, and its latents at unit length, float32 (N, D), on
        the CPU.
    """
    for name in task_data.cur_task:
        row = method.class_names_to_idx[name] - method.n_old_classes
        if row < 0:  # an earlier class is introduced again
            continue
        indices = task_data.get_image_indices_by_cla(name, num_samples=n_samples, shuffle=False)
        if len(indices):
            latents = class_latents(method, task_data, indices, batch_size)
            yield row, F.normalize(latents, dim=1)


def kmeans(points: torch.Tensor, k: int, seed: int = 0) -> torch.Tensor:
    """Return cluster centres: Lloyd's algorithm, with initial centres as in k-means++.

    Arthur and Vassilvitskii, "k-means++: The advantages of careful seeding" (SODA 2007).

    Args:
        points: float (N, D).
        k: Number of centres. If there are fewer distinct points, centres coincide.
        seed: Seed of the initial centres.

    Returns:
        The centres after :data:`ITERATIONS` iterations, (k, D).
    """
    generator = torch.Generator(points.device).manual_seed(seed)
    chance = points.new_ones(len(points))
    centres = points[torch.multinomial(chance, 1, generator=generator)]
    while len(centres) < k:
        distance = torch.cdist(points, centres).square().amin(dim=1)
        chance = distance + torch.finfo(points.dtype).tiny
        centres = torch.cat((centres, points[torch.multinomial(chance, 1, generator=generator)]))
    for _ in range(ITERATIONS):
        nearest = torch.cdist(points, centres).argmin(dim=1, keepdim=True)
        member = points.new_zeros(len(points), k).scatter_(1, nearest, 1.0)
        counts = member.sum(dim=0).unsqueeze(1)
        centres = torch.where(counts > 0, member.T @ points / counts.clamp(min=1), centres)
    return centres
