"""Inference on a processor in less time: what a network is turned into, how a batch is computed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR

Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Output and latent for images."""

MAX_PARTS = 4  # of a batch; what calls the operators of more of them is Python, one at a time


def without_batch_norms(net: nn.Module) -> nn.Module:
    """Return a network that computes the same in evaluation mode, up to rounding, in less time.

    Args:
        net: A network in evaluation mode; left as it is.

    Returns:
        A copy whose convolutions do what the batch normalisations after them did. The network
        itself where that is not sure to be right, as in a network of one's own, or not worth its
        while, as on a GPU.
    """
    is_known = isinstance(net, (ResNet, ResNetCIFAR))
    if not is_known or net.training or next(net.parameters()).device.type != "cpu":
        return net
    return fuse(net)


@contextmanager
def in_parts(forward: Forward) -> Iterator[Forward]:
    """Lend a forward pass that computes the parts of a batch side by side.

    The threads that share an operator wait for each other at its end, and so at the end of every
    operator; those that share a batch wait once.

    Args:
        forward: Computes on a processor, without gradients, and is safe to call from several
            threads.

    Yields:
        The same for a whole batch, up to rounding, with as many threads as torch has.
    """
    n_threads = torch.get_num_threads()
    n_parts = max(n for n in range(1, MAX_PARTS + 1) if n_threads % n == 0)
    if n_parts == 1:
        yield forward
        return

    def forward_part(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():  # each thread has its own mode
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
        torch.set_num_threads(n_threads)  # what a thread sets is the default of those to come
