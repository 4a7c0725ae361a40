"""Faster inference: folded batch norms and parallel parts on a CPU, large batches on a GPU."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval as fused_convolution

from iirc_train.models.adapted import Adapted
from iirc_train.models.branches import BranchedNetwork
from iirc_train.models.prompts import prompts_of
from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR

Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Returns output and latent of images."""

_TOLERANCE = 1e-4  # of the norm: rounding adds up to much less

MAX_PARTS = 4  # of a batch; beyond that, the parts wait for the GIL between operators


def without_batch_norms(net: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """Return a faster network with the same results in evaluation mode, up to rounding.

    Args:
        net: A network in evaluation mode; it is not modified.
        example: Images on which a network of unknown structure is compared with the original;
            None leaves such a network as it is.

    Returns:
        A copy with each batch normalisation folded into the convolution before it, in each branch
        of a network with several. ``net`` itself if it is on a GPU, in training mode, or not one of
        the ResNets of this package, whose structure is known, unless an example shows that the
        results are the same.
    """
    if isinstance(net, BranchedNetwork):
        branches = [without_batch_norms(branch) for branch in net.branches]
        if all(ours is theirs for ours, theirs in zip(branches, net.branches, strict=True)):
            return net
        return net.with_branches(branches)
    is_known = isinstance(net, (ResNet, ResNetCIFAR))
    if net.training or prompts_of(net) or not (is_known or example is not None):
        return net
    if next(net.parameters()).device.type != "cpu":
        return net
    return _folded_if_equal(net, example) if example is not None and not is_known else fuse(net)


def keeps_nothing(net: nn.Module) -> bool:
    """Return whether a network is known to keep nothing of a forward pass.

    Several threads may call such a network at once. One of a user may take its latent from an
    attribute that a forward hook sets, which threads would overwrite.
    """
    if isinstance(net, BranchedNetwork):
        return all(map(keeps_nothing, net.branches))
    return isinstance(net, (ResNet, ResNetCIFAR, Adapted))


def _folded_if_equal(net: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold each batch normalisation into the convolution that is registered before it."""
    folded = copy.deepcopy(net)
    layers = [
        (path, layer)
        for path, layer in folded.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    for (path, conv), (next_path, norm) in pairwise(layers):
        is_pair = isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        if is_pair and conv.out_channels == norm.num_features:
            folded.set_submodule(path, fused_convolution(conv, norm))
            folded.set_submodule(next_path, nn.Identity())
    pairs = zip(net(example), folded(example), strict=True)
    is_equal = all((a - b).norm() <= _TOLERANCE * a.norm() for a, b in pairs)
    return folded if is_equal else net


@contextmanager
def in_parts(forward: Forward) -> Iterator[Forward]:
    """Provide a forward pass that computes the parts of a batch in parallel.

    Threads that share an operator wait for each other after each operator; threads that share a
    batch wait only once.

    Args:
        forward: Computes on a CPU, without gradients; several threads call it at once.

    Yields:
        A function with the same results as ``forward``, up to rounding. It uses as many threads
        in all as torch does.
    """
    n_threads = torch.get_num_threads()
    n_parts = max(n for n in range(1, MAX_PARTS + 1) if n_threads % n == 0)
    if n_parts == 1:
        yield forward
        return

    def forward_part(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():  # inference mode is per thread
            return forward(images)

    def forward_all(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = torch.split(images, max(1, -(-len(images) // n_parts)))
        outputs, latents = zip(*pool.map(forward_part, parts), strict=True)
        return torch.cat(outputs), torch.cat(latents)

    pool = ThreadPoolExecutor(
        n_parts, "iirc-inference", torch.set_num_threads, (n_threads // n_parts,)
    )
    try:
        with pool:
            yield forward_all
    finally:
        torch.set_num_threads(n_threads)  # a thread's setting becomes the default of later threads


def within_memory(forward: Forward) -> Forward:
    """Return a forward pass that computes a batch in parts if the device's memory requires it.

    A part that does not fit is halved, and later batches are split into parts of that size.

    Args:
        forward: Computes without gradients.

    Returns:
        A function with the same results as ``forward``, up to rounding. It raises
        ``torch.OutOfMemoryError`` if not even one image fits.
    """
    most = 0  # images per part; 0 for all

    def forward_parts(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal most
        while True:
            parts = torch.split(images, most) if most else (images,)
            try:
                results = [forward(part) for part in parts]
                break
            except torch.OutOfMemoryError:
                largest = max(len(part) for part in parts)
                if largest <= 1:
                    raise
                most = largest // 2
            # here the exception, whose frames refer to tensors, is gone
            torch.cuda.empty_cache()
        if len(results) == 1:
            return results[0]
        outputs, latents = zip(*results, strict=True)
        return torch.cat(outputs), torch.cat(latents)

    return forward_parts


@contextmanager
def heuristic_convolutions() -> Iterator[None]:
    """A context in which cuDNN chooses convolution algorithms without timing them.

    Timing pays off for the one shape of training batches, but not for the many sizes of the last
    batches in evaluation and herding.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


BYTES_PER_PIXEL = 512  # of an image, in inference: a few feature maps of a ResNet's first stage
MAX_INFERENCE_BATCH = 2048


def inference_batch_size(at_least: int, image_size: int, free_bytes: int | None) -> int:
    """Return the batch size for evaluation and herding.

    Args:
        at_least: The batch size without a GPU, and the smallest with one.
        image_size: Height and width of the images in pixels.
        free_bytes: Free memory of the GPU; None without a GPU.

    Returns:
        With a GPU, the largest power of two that needs at most a quarter of the free memory, but
        at most :data:`MAX_INFERENCE_BATCH` and at least ``at_least``.
    """
    if free_bytes is None:
        return at_least
    fits = free_bytes // 4 // (BYTES_PER_PIXEL * image_size**2)
    return max(at_least, min(MAX_INFERENCE_BATCH, 1 << max(0, fits.bit_length() - 1)))
