"""The diagonal of the Fisher information of a network's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.func import functional_call, grad, vmap

from iirc_data.errors import ConfigurationError
from iirc_train.buffer.labelled import labelled_batches
from iirc_train.buffer.samples import TaskSamples
from iirc_train.methods.anchored import gradients_of
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.statistics import trained_parameters
from iirc_train.runtime.distributed import broadcast_buffers, share_of, total

Labels = Literal["model", "data", "data_weighted", "batches"]
"""Whose labels the gradients are of, and of what the squares are taken:

``"model"``
    of a label that is drawn, for each sample, from the network's own prediction. This is the Fisher
    information, estimated with one draw per sample.
``"data"``
    of the sample's label: the empirical Fisher information.
``"data_weighted"``
    of the sample's label, and each square is weighted by the probability that the network gives
    that label.
``"batches"``
    of the mean loss of a batch: the squares of its gradient, averaged over the batches. The network
    is in training mode, so the running statistics of batch normalisation change.
"""

MAX_GRADIENTS = 1 << 26
"""Elements of the gradients of single samples that are in memory at a time."""


def fisher_information(
    method: BaseMethod,
    samples: TaskSamples,
    labels: Labels,
    *,
    n_classes: int,
    indices: NDArray[np.int64] | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Return the mean square of the gradient of the log-likelihood, without augmentation.

    The likelihood is that of the loss: with ``ce`` of one of the classes, with ``bce`` of each of
    them on its own. With several processes, all must call this; they share the work.

    Args:
        method: The method, after its task.
        samples: The samples.
        labels: See :data:`Labels`.
        n_classes: Number of classes, at least those seen.
        indices: Indices of the samples to use, int64 (N,); all by default.
        batch_size: Samples per batch. Only with ``labels="batches"`` does the result depend on it.
        seed: Seed of the drawn labels.

    Returns:
        A tensor per parameter of :func:`~iirc_train.methods.statistics.trained_parameters`.

    Raises:
        ConfigurationError: The network cannot be differentiated for single samples.
    """
    chosen = np.arange(len(samples)) if indices is None else indices
    parameters = [parameter for _, parameter in trained_parameters(method.net)]
    sums = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
    in_batches = labels == "batches"
    parts = np.array_split(chosen, range(batch_size, len(chosen), batch_size))
    mine = chosen[share_of(len(chosen))]
    if in_batches:  # a batch is not divided
        mine = np.concatenate([chosen[:0], *parts[share_of(len(parts))]])
    random = np.random.default_rng(seed)
    draws = torch.from_numpy(random.random((len(chosen), n_classes), np.float32))
    draws = draws[share_of(len(chosen))].to(method.device)
    with samples.disable_augmentations(), method.full_precision(), _mode(method, train=in_batches):
        start = 0
        batches = labelled_batches(
            samples,
            mine,
            method.class_names_to_idx,
            n_classes=n_classes,
            device=method.device,
            batch_size=batch_size,
        )
        for images, targets in batches:
            if in_batches:
                squares = _squares_of_batch(method, images, targets)
            else:
                drawn = draws[start : start + len(images)]
                squares = _squares_of_samples(method, images, targets, labels, drawn)
            torch._foreach_add_(sums, squares)
            start += len(images)
    if in_batches:
        broadcast_buffers(method.net)
    n = len(parts) if in_batches else len(chosen)
    return [total(each) / max(n, 1) for each in sums]


def _log_likelihood(
    method: BaseMethod, output: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the log-likelihood of targets (N, classes) under outputs, (N,)."""
    logits = output[:, : targets.shape[1]] / method.config.temperature
    if method.config.loss == "ce":
        return -F.cross_entropy(logits, targets, reduction="none")
    return -F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)


def _squares_of_batch(
    method: BaseMethod, images: torch.Tensor, targets: torch.Tensor
) -> list[torch.Tensor]:
    """Return the squares of the gradient of a batch's mean loss."""
    parameters = [parameter for _, parameter in trained_parameters(method.net)]
    method.net.zero_grad()
    torch.autograd.backward(_log_likelihood(method, method.net(images)[0], targets).mean())
    squares = [gradient.square() for gradient in gradients_of(parameters)]
    method.net.zero_grad()
    return squares


def _squares_of_samples(
    method: BaseMethod,
    images: torch.Tensor,
    targets: torch.Tensor,
    labels: Labels,
    draws: torch.Tensor,
) -> list[torch.Tensor]:
    """Return the squares of the gradients of single samples, summed over the batch."""
    net = method.net
    parameters = {name: parameter.detach() for name, parameter in trained_parameters(net)}

    def log_likelihood(
        of: dict[str, torch.Tensor], image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        output, _ = functional_call(net, of, (image.unsqueeze(0),))
        return _log_likelihood(method, output, target.unsqueeze(0)).squeeze(0)

    gradient = vmap(grad(log_likelihood), (None, 0, 0))
    n_elements = sum(parameter.numel() for parameter in parameters.values())
    at_once = max(1, MAX_GRADIENTS // n_elements)
    sums = [torch.zeros_like(parameter) for parameter in parameters.values()]
    for part in range(0, len(images), at_once):
        rows = slice(part, part + at_once)
        with torch.no_grad():
            output = net(images[rows])[0]
            shown = targets[rows]
            if labels == "model":
                shown = _drawn(method, output, draws[rows])
        with _naming_the_remedy():
            found = gradient(parameters, images[rows], shown)
        if labels == "data_weighted":
            weight = _log_likelihood(method, output, shown).exp()
        for each, gradients in zip(sums, found.values(), strict=True):
            squares = gradients.square()
            if labels == "data_weighted":
                squares *= weight.view(-1, *(1 for _ in each.shape))
            each += squares.sum(dim=0)
    return sums


@contextmanager
def _naming_the_remedy() -> Iterator[None]:
    """Turn an error of ``torch.func`` into one that says what to choose."""
    try:
        yield
    except RuntimeError as error:
        cause = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"the network cannot be differentiated for single samples ({cause}): choose "
            "--ewc-fisher batches, or a network that torch.func.vmap supports"
        ) from error


def _drawn(method: BaseMethod, output: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return labels drawn from the network's prediction, float32 (N, classes).

    Args:
        method: The method.
        output: Logits (N, classes).
        draws: Uniform in [0, 1), (N, classes).
    """
    logits = output[:, : draws.shape[1]] / method.config.temperature
    if method.config.loss != "ce":
        return (draws < logits.sigmoid()).float()
    edges = logits.softmax(dim=1).cumsum(dim=1)[:, :-1].contiguous()
    label = torch.searchsorted(edges, draws[:, :1].contiguous(), right=True)
    return torch.zeros_like(logits).scatter_(1, label, 1.0)


@contextmanager
def _mode(method: BaseMethod, *, train: bool) -> Iterator[None]:
    was_training = method.training
    method.train(train)
    try:
        yield
    finally:
        method.train(was_training)
