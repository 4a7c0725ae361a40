"""The networks, by name.

A name is a key of :data:`NETWORKS`, a CIFAR ResNet of another depth 6 n + 2 such as ``resnet8``,
``torchvision:NAME``, ``timm:NAME``, or ``package.module:function`` for your own network.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from iirc_data.augment.network_images import NetworkImages
from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.network import AUTO, MAX_LAYERS, RESNET_NAME, image_size_of, network_of
from iirc_train.config.settings import nearest_name
from iirc_train.config.weights import NONE
from iirc_train.models.adapted import timm_network, torchvision_network
from iirc_train.models.efficientnet_lite import efficientnet_lite0
from iirc_train.models.frozen import keep_frozen
from iirc_train.models.mlp import MLP
from iirc_train.models.pretrained import add_weights, images_of, makes_pretrained
from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR


class Network(Protocol):
    """The interface that methods require of a network, which is a ``torch.nn.Module``.

    Attributes:
        model: A module whose attribute ``output_layer`` is the last layer of the network, a
            ``torch.nn.Linear``. A method may replace it by a wider or another kind of layer.
    """

    model: nn.Module

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, D) of images, float (N, 3, H, W).

        The output is ``model.output_layer(latent)``.
        """


class NetworkWithFeatureMaps(Network, Protocol):
    """The interface that methods require if they compare feature maps; the ResNets here have it.

    A network may name its stages instead, in an attribute ``stages`` with the names of submodules.
    """

    def latent_and_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the latent (N, D), and the feature map of each stage, (N, C, H, W) each.

        The ResNets return a stage's output before its last ReLU.
        """


Factory = Callable[..., nn.Module]
"""Creates a network; takes ``num_classes`` and, optionally, ``image_size`` and ``pretrained``.

``image_size`` is the height and width in pixels at which images are shown. ``pretrained=True`` asks
for the pretrained weights; an attribute ``images`` describes the images that they expect.
"""


def small_mlp(num_classes: int, image_size: int) -> MLP:
    """Return a multi-layer perceptron with two hidden layers of 400 units, for RGB images.

    These are the sizes of van de Ven & Tolias, "Three scenarios for continual learning" (2019).
    """
    return MLP((3, image_size, image_size), 1, num_classes, num_hidden_layers=2, hidden_sizes=400)


NETWORKS: dict[str, Factory] = {
    # for images of CIFAR's size, as in the published IIRC code: option B
    "resnet20": partial(ResNetCIFAR, num_layers=20),
    "resnet32": partial(ResNetCIFAR, num_layers=32),
    "resnet44": partial(ResNetCIFAR, num_layers=44),
    "resnet56": partial(ResNetCIFAR, num_layers=56),
    "resnet110": partial(ResNetCIFAR, num_layers=110),
    # as in the ResNet paper and in other libraries: option A, ReLU after the last block
    "resnet20_a": partial(ResNetCIFAR, num_layers=20, relu_last_hidden=True, shortcut="A"),
    "resnet32_a": partial(ResNetCIFAR, num_layers=32, relu_last_hidden=True, shortcut="A"),
    "resnet44_a": partial(ResNetCIFAR, num_layers=44, relu_last_hidden=True, shortcut="A"),
    "resnet56_a": partial(ResNetCIFAR, num_layers=56, relu_last_hidden=True, shortcut="A"),
    "resnet110_a": partial(ResNetCIFAR, num_layers=110, relu_last_hidden=True, shortcut="A"),
    # for images of ImageNet's size
    "resnet18": partial(ResNet, num_layers=18),
    "resnet34": partial(ResNet, num_layers=34),
    "resnet50": partial(ResNet, num_layers=50),
    "resnet101": partial(ResNet, num_layers=101),
    "resnet152": partial(ResNet, num_layers=152),
    # an ImageNet ResNet for images of CIFAR's size
    "resnet18_cifar": partial(ResNet, num_layers=18, stem="cifar"),
    "mlp": small_mlp,
    "efficientnet_lite0": efficientnet_lite0,
}
"""Factories by name. A script may add its own, as to the registry of methods."""


def make_network(config: MethodConfig, num_classes: int) -> nn.Module:
    """Create a network.

    Args:
        config: Its settings ``network``, ``n_layers`` and ``dataset`` choose the network, and
            ``weights`` what it starts from.
        num_classes: Number of outputs.

    Returns:
        A module that satisfies :class:`Network`.

    Raises:
        ConfigurationError: There is no such network, it lacks an output layer, or the weights
            cannot be loaded.
    """
    name = network_of(config.network, config.n_layers, config.dataset)
    factory = get_network(name)
    arguments: dict[str, Any] = {}
    if "image_size" in inspect.signature(factory).parameters:
        arguments["image_size"] = image_size_of(config.dataset)
    if makes_pretrained(factory, name, config.weights):
        arguments["pretrained"] = True
    net = factory(num_classes=num_classes, **arguments)
    layer = getattr(getattr(net, "model", None), "output_layer", None)
    if not isinstance(net, nn.Module) or not hasattr(layer, "in_features"):
        raise ConfigurationError(
            f"network {name} has no linear layer at net.model.output_layer: return a "
            f"torch.nn.Module with one, got {type(net).__name__}"
        )
    add_weights(net, name, config.weights)
    return net


def expected_images(network: str, weights: str) -> NetworkImages | None:
    """Return the images that a network's pretrained weights expect.

    Args:
        network: The setting ``network``.
        weights: The setting ``weights``.

    Returns:
        None without pretrained weights, or if nothing is known of them.

    Raises:
        ConfigurationError: There is no such network.
    """
    if weights == NONE or network == AUTO:
        return None
    return images_of(network, get_network(network))


def get_network(name: str) -> Factory:
    """Return the factory of a network.

    Raises:
        ConfigurationError: There is no such network, or its module cannot be imported.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    library, colon, wanted = name.partition(":")
    if colon:
        if library == "torchvision":
            return partial(torchvision_network, wanted)
        return partial(timm_network, wanted) if library == "timm" else _own(library, wanted)
    found = RESNET_NAME.fullmatch(name)
    depth = int(found["depth"]) if found else 0
    if found and found["kind"] != "_cifar" and depth % 6 == 2 and 8 <= depth <= MAX_LAYERS:
        is_option_a = found["kind"] == "_a"
        return partial(
            ResNetCIFAR,
            num_layers=depth,
            relu_last_hidden=is_option_a,
            shortcut="A" if is_option_a else "B",
        )
    raise ConfigurationError(
        f"there is no network {name!r}: choose {', '.join(NETWORKS)}, another ResNet for CIFAR "
        "with 6 n + 2 layers, torchvision:NAME, timm:NAME or package.module:function"
        f"{nearest_name(name, NETWORKS)}"
    )


def check_network(net: nn.Module, name: str, image_size: int) -> None:
    """Check that a network can process images and returns what methods expect.

    Args:
        net: The network; it is not modified.
        name: Its name. Networks of this package are not checked.
        image_size: Height and width in pixels of the images.

    Raises:
        ConfigurationError: The forward pass fails, or does not return output (N, classes) and
            latent (N, D).
    """
    if ":" not in name:
        return
    parameter = next(net.parameters())
    images = torch.zeros(2, 3, image_size, image_size).to(parameter)
    was_training = net.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            result = net.eval()(images)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise ConfigurationError(
            f"network {name} cannot process images of {image_size} x {image_size} pixels: "
            f"{' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    finally:
        net.train(was_training)
        keep_frozen(net)
    layer = cast(nn.Linear, cast(Network, net).model.output_layer)
    expected = [(2, layer.out_features), (2, layer.in_features)]
    shapes = [tuple(part.shape) for part in result] if isinstance(result, tuple | list) else None
    if shapes != expected:
        seen = type(result).__name__ if shapes is None else ", ".join(map(str, shapes))
        raise ConfigurationError(
            f"network {name} must return output and latent, of shapes {expected[0]} and "
            f"{expected[1]} for 2 images, got {seen}"
        )


def _own(module_name: str, function_name: str) -> Factory:
    """Import the factory of a user's network; the module may be in the current folder."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(
            0, here
        )  # Python does so for a script and for -m, but not for an installed command
    name = f"{module_name}:{function_name}"
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except (ImportError, ValueError) as error:  # ValueError: an empty name
        raise ConfigurationError(
            f"cannot import network {name}: {error}; start the command in the folder of "
            f"{module_name.partition('.')[0] or 'the module'}, or add that folder to PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigurationError(
            f"network {name}: module {module_name} has no function {function_name!r}"
        )
    return cast(Factory, function)
