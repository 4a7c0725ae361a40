"""Accuracies of runs that predict one label per sample: from the rank of the true label."""

from collections.abc import Callable

import torch

from iirc_train.metrics.outputs import Outputs


def rank_of_label(outputs: Outputs) -> torch.Tensor:
    """Return how many classes score higher than each sample's best label, int64 (N,).

    Of equal scores the first counts as the highest, as for ``argmax``. A sample without a label has
    the rank 2^31.
    """
    assert outputs.scores is not None
    return _rank(outputs.scores, outputs.targets)


def rank_within_task(outputs: Outputs) -> torch.Tensor:
    """Return :func:`rank_of_label` among the classes of the task that introduced the label."""
    assert outputs.scores is not None and outputs.task_of_class is not None
    task_of_class = outputs.task_of_class[: outputs.targets.shape[1]]
    tasks = task_of_class.expand_as(outputs.targets)
    task = torch.where(outputs.targets, tasks, -1).amax(dim=1, keepdim=True)
    return _rank(outputs.scores, outputs.targets, tasks == task)


def _rank(
    scores: torch.Tensor, targets: torch.Tensor, among: torch.Tensor | None = None
) -> torch.Tensor:
    places = torch.arange(scores.shape[1], device=scores.device)
    own = torch.where(targets, scores, -torch.inf)
    best = own.amax(dim=1, keepdim=True)
    place = torch.where(targets & (own == best), places, scores.shape[1]).amin(dim=1, keepdim=True)
    ahead = (scores > best) | ((scores == best) & (places < place))
    if among is not None:
        ahead &= among
    return torch.where(targets.any(dim=1), ahead.sum(dim=1), 2**31)


def share_below(most: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that computes the share of ranks below ``most``."""
    return lambda ranks: (ranks < most).float().mean()
