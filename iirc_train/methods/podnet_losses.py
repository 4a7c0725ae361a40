"""The losses of PODNet: distances of pooled feature maps, and NCA with a margin.

Douillard et al., "PODNet: Pooled outputs distillation for small-tasks incremental learning" (ECCV
2020), sections 3.1 and 3.2.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def pod_spatial(maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean distance of pooled feature maps over the stages, equations 3 to 5.

    Each map is summed over each of its spatial axes in turn, and scaled to unit length; the squared
    distances are added. A map without spatial axes is compared as it is.

    Args:
        maps: (N, C, ...) each.
        teacher_maps: Of the same shapes.

    Returns:
        (N,).
    """
    losses = [
        between_directions(a, b).square().sum(dim=1)
        for ours, old in zip(maps, teacher_maps, strict=True)
        for a, b in zip(_pooled(ours), _pooled(old), strict=True)
    ]
    return torch.stack(losses).sum(dim=0) / len(maps)


def pod_spatial_of_reference(
    maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return POD-spatial in the form of PyCIL; see :func:`pod_spatial`."""
    losses = []
    for ours, old in zip(maps, teacher_maps, strict=True):
        a, b = (torch.cat(_pooled(F.relu(each).square()), dim=1) for each in (ours, old))
        losses.append(between_directions(a, b).norm(dim=1))
    return torch.stack(losses).mean(dim=0)


def between_directions(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the difference of the rows (N, D) of two matrices, scaled to unit length."""
    return F.normalize(a, dim=1) - F.normalize(b, dim=1)


def _pooled(feature_map: torch.Tensor) -> list[torch.Tensor]:
    """Return a map (N, C, ...) summed over each spatial axis, (N, features) each."""
    axes = range(2, feature_map.dim())
    return [feature_map.sum(dim=axis).flatten(1) for axis in reversed(axes)] or [feature_map]


def nca(scores: torch.Tensor, targets: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """Return the loss of equation 11: the label's score must exceed all others by a margin.

    Args:
        scores: (N, classes), multiplied by the scale η.
        targets: Indicator of the label, (N, classes).
        margin: η δ, a scalar.

    Returns:
        (N,), not negative.
    """
    own = (scores * targets).sum(dim=1)
    others = scores.masked_fill(targets > 0, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    return F.relu(others - own + margin)


def nca_of_reference(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss in the form of PyCIL, which has no margin; see :func:`nca`.

    The largest score is subtracted from all. Then the label's own term is exp(0) in the
    denominator.
    """
    shifted = scores - scores.max(dim=1, keepdim=True).values
    own = (shifted * targets).sum(dim=1)
    return (shifted * (1 - targets)).logsumexp(dim=1) - own
