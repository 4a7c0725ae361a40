"""Small helpers that methods share, under their published names."""

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau
from torch.utils.data import Sampler

from iirc_data.errors import ConfigurationError
from iirc_train.saved_model import load_model as load_model
from iirc_train.saved_model import save_model as save_model


class SubsetSampler(Sampler[int]):
    """Samples the given indices in order, each once.

    Args:
        indices: The indices.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def get_optimizer(
    model_parameters: Iterable[nn.Parameter],
    optimizer_type: str = "momentum",
    lr: float = 0.01,
    lr_gamma: float = 1.0,
    lr_schedule: Sequence[int] | None = None,
    reduce_lr_on_plateau: bool = False,
    weight_decay: float = 0.0001,
) -> tuple[optim.Optimizer, LRScheduler | ReduceLROnPlateau]:
    """Make optimizer and scheduler.

    Args:
        model_parameters: Parameters to optimize.
        optimizer_type: ``"momentum"`` (SGD with momentum 0.9) or ``"adam"``.
        lr: Initial learning rate.
        lr_gamma: Factor of the learning rate at each decay.
        lr_schedule: Epochs at which the learning rate decays.
        reduce_lr_on_plateau: Decay when the validation metric (larger is better) has not grown
            by 0.001 for 10 epochs; ``lr_schedule`` is ignored then.
        weight_decay: Weight decay.

    Returns:
        The optimizer and the scheduler, which is stepped once per epoch.

    Raises:
        ConfigurationError: The optimizer type is unknown.
    """
    optimizer: optim.Optimizer
    if optimizer_type == "momentum":
        optimizer = optim.SGD(model_parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
    elif optimizer_type == "adam":
        optimizer = optim.Adam(model_parameters, lr=lr, weight_decay=weight_decay)
    else:
        raise ConfigurationError(f"unknown optimizer {optimizer_type!r}: choose momentum or adam")
    if reduce_lr_on_plateau:
        return optimizer, ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=lr_gamma,
            patience=10,
            threshold=1e-3,
            threshold_mode="abs",
        )
    if lr_schedule:
        return optimizer, MultiStepLR(optimizer, milestones=list(lr_schedule), gamma=lr_gamma)
    return optimizer, LambdaLR(optimizer, lr_lambda=lambda epoch: 1.0)


def copy_freeze(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters need no gradient, in evaluation mode."""
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen


def transform_labels_names_to_vector(
    labels_names: Iterable[str] | Sequence[Iterable[str]],
    num_seen_classes: int,
    class_names_to_idx: dict[str, int],
) -> torch.Tensor:
    """Encode label names as indicator vectors.

    Args:
        labels_names: For each sample the names of its labels, or the names of one sample. Names
            that are no class (such as ``NO_LABEL_PLACEHOLDER``) or are not seen yet are left out.
        num_seen_classes: Length of a vector.
        class_names_to_idx: Index of each class.

    Returns:
        float32 (N, num_seen_classes), or (num_seen_classes,) for one sample.
    """
    each = list(labels_names)
    if each and all(isinstance(names, str) for names in each):
        return _indicator(map(str, each), num_seen_classes, class_names_to_idx)
    vectors = [_indicator(names, num_seen_classes, class_names_to_idx) for names in each]
    return torch.stack(vectors) if vectors else torch.zeros(0, num_seen_classes)


def _indicator(names: Iterable[str], length: int, indices: dict[str, int]) -> torch.Tensor:
    vector = torch.zeros(length)
    known = [indices[name] for name in names if indices.get(name, length) < length]
    vector[known] = 1.0
    return vector


def labels_index_to_one_hot(labels: torch.Tensor, length: int) -> torch.Tensor:
    """Encode class indices as indicator vectors.

    Args:
        labels: int64 (N,), in [0, length).
        length: Number of classes.

    Returns:
        float32 (N, length).
    """
    one_hot = torch.zeros(len(labels), length, device=labels.device)
    return one_hot.scatter_(1, labels.unsqueeze(1), 1.0)  # F.one_hot would wait for the device


def l_distance(
    input_vectors: torch.Tensor, ref_vectors: torch.Tensor, p: float | str | None = 2
) -> torch.Tensor:
    """Return the distance of each input to each reference.

    Args:
        input_vectors: (N, D).
        ref_vectors: (C, D).
        p: Order of the norm, for example 2, ``"inf"``, or ``"fro"`` or None for 2.

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
    """Cross-entropy of classes whose logits are the negative distances to their references.

    Args:
        input_vectors: (N, D).
        ref_vectors: One reference per class, (C, D).
        labels_one_hot: Indicator labels (N, C); several labels share the target evenly.
        p: Order of the norm; see :func:`l_distance`.
        temperature: Distances are divided by this.

    Returns:
        The mean loss, a scalar, and the nearest reference of each input, int64 (N,).
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
    """Hinge loss: each reference of another class is to be farther than the own by a margin.

    The margin is ``base_margin`` / √C.

    Args:
        input_vectors: (N, D).
        ref_vectors: One reference per class, (C, D).
        labels_one_hot: Indicator labels (N, C); several labels count evenly.
        p: Order of the norm; see :func:`l_distance`.
        base_margin: Margin before scaling.

    Returns:
        The loss, a scalar, the mean over samples and all classes (the own counts as 0), and the
        nearest reference of each input, int64 (N,).
    """
    distance = l_distance(input_vectors, ref_vectors, p)
    labels = labels_one_hot.to(distance.dtype)
    n_labels = labels.sum(dim=1).clamp(min=1).view(-1, 1, 1)
    margin = base_margin / len(ref_vectors) ** 0.5
    hinge = F.relu(margin + distance.unsqueeze(2) - distance.unsqueeze(1))  # own x other
    pairs = labels.unsqueeze(2) * (1 - labels).unsqueeze(1) / n_labels
    return (hinge * pairs).sum() / distance.numel(), distance.argmin(dim=1)


def get_gradient(model: nn.Module) -> torch.Tensor:
    """Return all gradients of a model's trained parameters as one vector, 0 where there is none."""
    return torch.cat(
        [
            (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
    )


def update_gradient(model: nn.Module, new_grad: torch.Tensor) -> None:
    """Overwrite the gradients of a model.

    Args:
        model: The model.
        new_grad: A vector as :func:`get_gradient` gives it.

    Raises:
        ValueError: The vector's length is not the number of the model's trained parameters.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    if new_grad.shape != (sum(sizes),):
        raise ValueError(f"expected a gradient of shape ({sum(sizes)},), got {new_grad.shape}")
    for parameter, gradient in zip(parameters, torch.split(new_grad, sizes), strict=True):
        parameter.grad = gradient.view_as(parameter).clone(memory_format=torch.preserve_format)
