"""Distillation, masks of classes, and losses of the distances between latents and references."""

import torch
import torch.nn.functional as F


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 2.0
) -> torch.Tensor:
    """Return the cross-entropy between the softmax outputs of teacher and network.

    Li and Hoiem, "Learning without forgetting" (ECCV 2016), section 3, equations 2 and 3. As there,
    the loss is not multiplied by the square of the temperature.

    Args:
        logits: (N, classes), or (N, classes, heads) for several softmax outputs.
        teacher_logits: Likewise.
        temperature: Divides both.

    Returns:
        The loss of each sample, (N,) or (N, heads).
    """
    soft = (teacher_logits / temperature).softmax(dim=1)
    return F.cross_entropy(logits / temperature, soft, reduction="none")


NEVER = -1e9
"""A logit whose softmax output is 0, and which gives no NaN where its target is 0."""


def masked_for_new_classes(logits: torch.Tensor, targets: torch.Tensor, n_old: int) -> torch.Tensor:
    """Return logits for a cross-entropy of each sample over the classes of its own time.

    Args:
        logits: (N, classes).
        targets: Indicator targets (N, classes).
        n_old: Number of classes of earlier tasks, which come first.

    Returns:
        The logits, with :data:`NEVER` for the earlier classes in the rows of samples that have no
        label among them. A memory of an earlier task keeps all.
    """
    if not n_old:
        return logits
    is_new = targets[:, :n_old].sum(dim=1, keepdim=True) == 0
    is_old_class = torch.arange(logits.shape[1], device=logits.device) < n_old
    return logits.masked_fill(is_new & is_old_class, NEVER)


def l_distance(
    input_vectors: torch.Tensor, ref_vectors: torch.Tensor, p: float | str | None = 2
) -> torch.Tensor:
    """Return the distance between each input and each reference.

    Args:
        input_vectors: (N, D).
        ref_vectors: (C, D).
        p: Order of the norm, for example 2 or ``"inf"``. ``"fro"`` and None mean 2.

    Returns:
        (N, C).
    """
    order = 2.0 if p is None or p == "fro" else float(p)
    difference = input_vectors.unsqueeze(1) - ref_vectors.unsqueeze(0)
    distance: torch.Tensor = torch.linalg.vector_norm(difference, ord=order, dim=2)
    return distance


def contrastive_distance_loss(
    input_vectors: torch.Tensor,
    ref_vectors: torch.Tensor,
    labels_one_hot: torch.Tensor,
    p: float | str | None = 2,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy with the negative distances to the classes' references as logits.

    Args:
        input_vectors: (N, D).
        ref_vectors: One reference per class, (C, D).
        labels_one_hot: Indicator labels (N, C). Several labels of a sample share the target evenly.
        p: Order of the norm; see :func:`l_distance`.
        temperature: Divides the distances.

    Returns:
        The mean loss, a scalar, and the index of the nearest reference of each input, int64 (N,).
    """
    distance = l_distance(input_vectors, ref_vectors, p)
    labels = labels_one_hot.to(distance.dtype)
    target = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
    return F.cross_entropy(-distance / temperature, target), distance.argmin(dim=1)


def triplet_margin_loss(
    input_vectors: torch.Tensor,
    ref_vectors: torch.Tensor,
    labels_one_hot: torch.Tensor,
    p: float | str | None = 2,
    base_margin: float = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hinge loss that keeps other classes' references farther away than the own by a margin.

    The margin is ``base_margin`` / √C.

    Args:
        input_vectors: (N, D).
        ref_vectors: One reference per class, (C, D).
        labels_one_hot: Indicator labels (N, C). Several labels of a sample count evenly.
        p: Order of the norm; see :func:`l_distance`.
        base_margin: Margin before scaling.

    Returns:
        The loss, a scalar (the mean over samples and all C classes, with 0 for the own class), and
        the index of the nearest reference of each input, int64 (N,).
    """
    distance = l_distance(input_vectors, ref_vectors, p)
    labels = labels_one_hot.to(distance.dtype)
    n_labels = labels.sum(dim=1).clamp(min=1).view(-1, 1, 1)
    margin = base_margin / len(ref_vectors) ** 0.5
    hinge = F.relu(margin + distance.unsqueeze(2) - distance.unsqueeze(1))  # own x other
    pairs = labels.unsqueeze(2) * (1 - labels).unsqueeze(1) / n_labels
    return (hinge * pairs).sum() / distance.numel(), distance.argmin(dim=1)
