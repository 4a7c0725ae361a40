"""Output layers that compare the directions of latents and class weights.

Hou et al., "Learning a unified classifier incrementally via rebalancing" (CVPR 2019), section 3.2.
With several proxies per class, Douillard et al., "PODNet: Pooled outputs distillation for
small-tasks incremental learning" (ECCV 2020), section 3.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

Sigma = bool | float | int


class CosineLinear(nn.Module):
    """Computes ``sigma`` times the cosine between the input and the weight of each class.

    With several weights per class, its proxies, the cosines of a class are averaged, weighted by
    their softmax; see :func:`local_similarity`.

    Args:
        in_features: Size of the input.
        out_features: Number of classes.
        sigma: True for a learned scale, which starts at 1; a number for a fixed scale; False for no
            scale.
        n_proxies: Number of weights of each class, which are consecutive rows of ``weight``.
        epsilon: Added to the norms that inputs and weights are divided by.
    """

    sigma: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        sigma: Sigma = True,
        n_proxies: int = 1,
        epsilon: float = 0.0,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.in_features = in_features
        self.out_features = out_features
        self.n_proxies = n_proxies
        self.weight = nn.Parameter(torch.empty(out_features * n_proxies, in_features))
        _register_sigma(self, sigma)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, and reset a learned scale to 1."""
        bound = 1.0 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if isinstance(self.sigma, nn.Parameter):
            nn.init.ones_(self.sigma)

    def forward(self, input_: torch.Tensor) -> torch.Tensor:
        """Return (N, out_features) for inputs (N, in_features)."""
        cosine = F.linear(*(_unit(rows, self.epsilon) for rows in (input_, self.weight)))
        if self.n_proxies > 1:
            cosine = local_similarity(cosine, self.n_proxies)
        return cosine if self.sigma is None else self.sigma * cosine


class SplitCosineLinear(nn.Module):
    """A cosine layer with two parts: ``fc1`` for earlier classes, ``fc2`` for new classes.

    Args:
        in_features: Size of the input.
        out_features1: Number of earlier classes.
        out_features2: Number of new classes.
        sigma: Scale of both parts; see :class:`CosineLinear`.
        n_proxies: Number of weights of each class; see :class:`CosineLinear`.
    """

    sigma: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features1: int,
        out_features2: int,
        sigma: Sigma = True,
        n_proxies: int = 1,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features1 + out_features2
        self.n_proxies = n_proxies
        self.fc1 = CosineLinear(in_features, out_features1, sigma=False, n_proxies=n_proxies)
        self.fc2 = CosineLinear(in_features, out_features2, sigma=False, n_proxies=n_proxies)
        _register_sigma(self, sigma)

    @property
    def weight(self) -> torch.Tensor:
        """The weights of both parts, (out_features * n_proxies, in_features)."""
        return torch.cat((self.fc1.weight, self.fc2.weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, out_features1 + out_features2) for inputs (N, in_features)."""
        cosine = torch.cat((self.fc1(x), self.fc2(x)), dim=1)
        return cosine if self.sigma is None else self.sigma * cosine


def _unit(rows: torch.Tensor, epsilon: float) -> torch.Tensor:
    if not epsilon:
        return F.normalize(rows, dim=1)
    norm: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / (norm + epsilon)


def local_similarity(cosine: torch.Tensor, n_proxies: int) -> torch.Tensor:
    """Return the mean cosine of each class, weighted by the softmax over its proxies.

    Douillard et al. (2020), equations 8 and 9.

    Args:
        cosine: (N, classes * n_proxies), proxies of a class side by side.
        n_proxies: Number of proxies of each class.

    Returns:
        (N, classes).
    """
    of_class = cosine.view(cosine.shape[0], -1, n_proxies)
    return (of_class.softmax(dim=2) * of_class).sum(dim=2)


def with_cosine_layer(
    net: nn.Module,
    n_classes: int,
    n_proxies: int = 1,
    *,
    sigma: Sigma = True,
    epsilon: float = 0.0,
) -> nn.Module:
    """Replace ``net.model.output_layer`` by a cosine layer, unless it is one already.

    Args:
        net: The network; modified in place.
        n_classes: Number of outputs of the new layer.
        n_proxies: Number of weights of each class.
        sigma: Scale of the new layer; see :class:`CosineLinear`.
        epsilon: See :class:`CosineLinear`.

    Returns:
        The network.
    """
    layer = net.model.output_layer  # type: ignore[union-attr]
    if not isinstance(layer, CosineLinear | SplitCosineLinear):
        in_features = int(layer.in_features)  # type: ignore[union-attr,arg-type]
        cosine = CosineLinear(in_features, n_classes, sigma, n_proxies, epsilon)
        net.model.output_layer = cosine.to(layer.weight.device)  # type: ignore[union-attr,arg-type]
    return net


def grow_cosine_layer(net: nn.Module, n_classes: int) -> SplitCosineLinear:
    """Add classes to the cosine layer of a network.

    The weights of the current layer become ``fc1``; ``fc2`` has new weights.

    Args:
        net: A network whose ``net.model.output_layer`` is a cosine layer; modified in place.
        n_classes: Number of new classes.

    Returns:
        The new layer, with a learned scale of 1.
    """
    old = net.model.output_layer  # type: ignore[union-attr]
    assert isinstance(old, CosineLinear | SplitCosineLinear)
    layer = SplitCosineLinear(
        old.in_features, old.out_features, n_classes, n_proxies=old.n_proxies
    ).to(old.weight.device)
    with torch.no_grad():
        layer.fc1.weight.copy_(old.weight)
    net.model.output_layer = layer  # type: ignore[union-attr]
    return layer


def _register_sigma(layer: nn.Module, sigma: Sigma) -> None:
    if sigma is True:
        layer.register_parameter("sigma", nn.Parameter(torch.ones(1)))
    elif sigma is False:
        layer.register_parameter("sigma", None)
    else:
        layer.register_buffer("sigma", torch.tensor([float(sigma)]))
