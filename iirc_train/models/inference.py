"""Faster inference on a CPU: batch norms folded into convolutions, batches computed in parts."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR

Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Returns output and latent of images."""

MAX_PARTS = 4  # of a batch; beyond that, the parts wait for the GIL between operators


def without_batch_norms(net: nn.Module) -> nn.Module:
    """Return a faster network with the same results in evaluation mode, up to rounding.

    Args:
        net: A network in evaluation mode; it is not modified.

    Returns:
        A copy with each batch normalisation folded into the convolution before it. ``net`` itself
        if it is not one of the ResNets of this package, whose structure is known, if it is on a
        GPU, or if it is in training mode.
    """
    is_known = isinstance(net, (ResNet, ResNetCIFAR))
    if not is_known or net.training or next(net.parameters()).device.type != "cpu":
        return net
    return fuse(net)


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
