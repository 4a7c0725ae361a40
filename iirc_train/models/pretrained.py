"""Pretrained networks: the libraries' own weights, and the images they were trained on."""

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iirc_data.augment.network_images import NetworkImages
from iirc_data.augment.parameters import Interpolation
from iirc_data.errors import ConfigurationError
from iirc_train.config.network import IMAGENET_DEPTHS
from iirc_train.config.weights import DEFAULT, NONE
from iirc_train.models.weights import load_weights, read_weights, remember_digest

IMAGENET_RESNETS = {f"resnet{depth}": f"torchvision:resnet{depth}" for depth in IMAGENET_DEPTHS}
"""Networks here with the layers of another library's network, and so with its weights."""


def add_weights(net: nn.Module, network: str, weights: str) -> None:
    """Load the weights that a setting names into a network, and note their digest.

    Args:
        net: The network, made with ``pretrained=True`` if its factory has that parameter and the
            weights are the default ones; modified in place.
        network: Its name.
        weights: ``"none"``, ``"default"``, or a file.

    Raises:
        ConfigurationError: There are no such weights, they cannot be read, or they do not fit.
    """
    if weights == NONE:
        return
    if weights != DEFAULT:
        source = f"network {network}, weights {weights}"
        load_weights(net, read_weights(Path(weights)), source)
    elif (name := _torchvision_name(network)) is not None:
        load_weights(net, _of_torchvision(name), f"network {network}, weights default")
    if hasattr(getattr(net, "backbone", None), "transform_input"):
        net.backbone.transform_input = True  # type: ignore[union-attr]  # of GoogLeNet and Inception
    remember_digest(net)


def makes_pretrained(factory: Callable[..., nn.Module], network: str, weights: str) -> bool:
    """Return whether a factory is to be called with ``pretrained=True``.

    Raises:
        ConfigurationError: The default weights are asked for, and the network has none.
    """
    if weights != DEFAULT or _torchvision_name(network) is not None:
        return False
    if "pretrained" not in inspect.signature(factory).parameters:
        raise ConfigurationError(
            f"weights default: network {network} has no pretrained weights of its own: give "
            "--weights FILE, or add a parameter 'pretrained' to your own network's function"
        )
    return True


def images_of(network: str, factory: Callable[..., Any]) -> NetworkImages | None:
    """Return the images that a network's pretrained weights expect; None if nothing is known.

    Args:
        network: Name of the network.
        factory: Makes the network; its attribute ``images`` describes them, if it has one.

    Raises:
        ConfigurationError: There is no such network.
    """
    if (name := _torchvision_name(network)) is not None:
        return _images_of_torchvision(name)
    library, _, name = network.partition(":")
    if library == "timm":
        return _images_of_timm(name)
    found = getattr(factory, "images", None)
    if isinstance(found, Mapping):
        try:
            found = NetworkImages(**found)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"network {network}: images must have size, resize, mean and std, and may have "
                f"interpolation ({error})"
            ) from error
    return found if isinstance(found, NetworkImages) else None


def unavailable(what: str, error: Exception, bring: str) -> ConfigurationError:
    """Return the error for weights that could not be downloaded.

    Args:
        what: The network.
        error: What the library raised.
        bring: The file to bring, for example an address.
    """
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ConfigurationError(
        f"weights default: cannot download those of {what} ({reason}): without network access, "
        f"bring {bring} from another machine, and give --weights FILE"
    )


def timm_is_missing(name: str, error: ImportError) -> ConfigurationError:
    """Return the error for a network of timm where timm is not installed."""
    return ConfigurationError(
        f"network timm:{name} needs timm: pip install 'iirc-pipeline[timm]' ({error})"
    )


def _torchvision_name(network: str) -> str | None:
    library, _, name = IMAGENET_RESNETS.get(network, network).partition(":")
    return name if library == "torchvision" else None


def _default_of_torchvision(name: str) -> Any:
    from torchvision import models

    try:
        return models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"weights default: torchvision has no weights of {name!r}: give --weights FILE"
        ) from error


def _of_torchvision(name: str) -> Mapping[str, torch.Tensor]:
    weights = _default_of_torchvision(name)
    try:
        state: Mapping[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError, a wrong hash
        raise unavailable(f"torchvision:{name}", error, weights.url) from error
    return state


def _images_of_torchvision(name: str) -> NetworkImages | None:
    try:
        transforms = _default_of_torchvision(name).transforms()
    except ConfigurationError:
        return None
    return NetworkImages(
        size=int(transforms.crop_size[0]),
        resize=int(transforms.resize_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=_nearest_interpolation(transforms.interpolation.value),
    )


def _images_of_timm(name: str) -> NetworkImages | None:
    try:
        from timm.data import resolve_data_config
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise timm_is_missing(name, error) from error
    found = get_pretrained_cfg(name)
    if found is None:
        return None
    data = resolve_data_config(pretrained_cfg=found.to_dict(), verbose=False)
    size = int(data["input_size"][-1])
    return NetworkImages(
        size=size,
        resize=math.floor(size / data["crop_pct"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=_nearest_interpolation(data["interpolation"]),
    )


def _nearest_interpolation(name: str) -> Interpolation:
    """Return the interpolation of loaders that is most like that of another library."""
    return "bilinear" if name in ("bilinear", "nearest", "box", "hamming") else "bicubic"
