"""Hierarchies of classes that a method discovers, and what is consistent with them.

A hierarchy is int64 (classes, levels): each row holds a class, its superclass, that class's
superclass, and so on, padded with -1. The rows are in the order of the classes, and a superclass
comes before its subclasses.
"""

from typing import Literal

import torch
import torch.nn.functional as F

Choice = Literal["highest", "deepest"]
"""Which of several possible superclasses: the most frequent one, or the one with most ancestors."""

NONE = -1
"""No class."""


def singletons(n_classes: int) -> torch.Tensor:
    """Return the hierarchy in which no class has a superclass, on the CPU."""
    return torch.arange(n_classes).unsqueeze(1)


def levels(hierarchy: torch.Tensor) -> torch.Tensor:
    """Return the number of classes from each class up to its top, itself included, int64 (C,)."""
    return (hierarchy != NONE).sum(dim=1)


def find_superclasses(
    fractions: torch.Tensor, hierarchy: torch.Tensor, threshold: float, choice: Choice
) -> torch.Tensor:
    """Return the superclass of each new class, int64 (new,), -1 for none.

    Args:
        fractions: Fraction of the new class's samples for which an earlier class is predicted,
            in [0, 1], (new, earlier).
        hierarchy: That of the earlier classes.
        threshold: A superclass has a fraction above this.
        choice: Decides between several such classes. If they are equal in this respect, the other
            one decides, and then the order of the classes.
    """
    possible = fractions > threshold
    keys = [levels(hierarchy).to(fractions.dtype).expand_as(fractions), fractions]
    for key in keys if choice == "deepest" else keys[::-1]:
        possible = _highest(possible, key)
    return torch.where(possible.any(dim=1), possible.int().argmax(dim=1), NONE)


def grown(hierarchy: torch.Tensor, superclasses: torch.Tensor) -> torch.Tensor:
    """Return a hierarchy with new classes.

    Args:
        hierarchy: That of the earlier classes, on the CPU.
        superclasses: The superclass of each new class, int64 (new,), on the CPU; -1 for none.
    """
    n_old = len(hierarchy)
    own = torch.arange(n_old, n_old + len(superclasses)).unsqueeze(1)
    upward = F.pad(hierarchy, (0, 0, 0, 1), value=NONE)[superclasses]  # -1: the row that was added
    rows = torch.cat((F.pad(hierarchy, (0, 1), value=NONE), torch.cat((own, upward), dim=1)))
    return rows[:, : int(levels(rows).max())]


def with_superclasses(targets: torch.Tensor, hierarchy: torch.Tensor) -> torch.Tensor:
    """Return targets in which each label is joined by all of its superclasses.

    Args:
        targets: Indicator targets, float32 (N, classes).
        hierarchy: That of the classes.
    """
    if hierarchy.shape[1] == 1:
        return targets
    n_classes = len(hierarchy)
    result = F.pad(targets, (0, 1))  # one more column, for classes without a superclass
    for superclass in hierarchy[:, 1:].unbind(dim=1):
        result.index_add_(1, superclass.remainder(n_classes + 1), targets)  # -1: that column
    return result[:, :n_classes].clamp(max=1)


def consistent(
    predictions: torch.Tensor, scores: torch.Tensor, hierarchy: torch.Tensor
) -> torch.Tensor:
    """Return, for each prediction, the nearest one that is consistent with a hierarchy.

    A consistent prediction is a class together with all of its superclasses. The nearest one
    differs in the fewest labels. Of several, those come first whose own class is predicted, then
    those of the most labels, then those whose own class has the highest score.

    Args:
        predictions: bool (N, classes).
        scores: float (N, classes).
        hierarchy: That of the classes.

    Returns:
        bool (N, classes). A consistent prediction stays as it is.
    """
    depth = levels(hierarchy)
    predicted = F.pad(predictions, (0, 1))
    path = hierarchy.remainder(predicted.shape[1])  # -1: the column that was added
    common = torch.stack([predicted[:, each] for each in path.unbind(dim=1)]).sum(dim=0)
    n_different = predictions.sum(dim=1, keepdim=True) + depth - 2 * common
    possible = _highest(torch.ones_like(predictions), -n_different)
    possible = torch.where((possible & predictions).any(1, True), possible & predictions, possible)
    possible = _highest(possible, depth.expand_as(n_different))
    possible = _highest(possible, scores)
    best = possible.int().argmax(dim=1)
    return torch.zeros_like(predicted).scatter_(1, path[best], True)[:, :-1]


def _highest(possible: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return which of the possible columns of each row have the highest key.

    Args:
        possible: bool (N, columns).
        key: (N, columns).
    """
    lowest = -torch.inf if key.is_floating_point() else torch.iinfo(key.dtype).min
    key = key.masked_fill(~possible, lowest)
    return possible & (key == key.amax(dim=1, keepdim=True))
