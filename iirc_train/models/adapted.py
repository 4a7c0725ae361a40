"""Adapts classification models of torchvision and timm: they return output and latent."""

from typing import Any

import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.config.settings import nearest_name
from iirc_train.models.pretrained import timm_is_missing, unavailable
from iirc_train.models.resnet import latent_and_maps

# with auxiliary classifiers, a model has several outputs in training
_NO_AUXILIARY: dict[str, Any] = {"aux_logits": False, "init_weights": True}
_ARGUMENTS = {"googlenet": _NO_AUXILIARY, "inception_v3": _NO_AUXILIARY}


class Adapted(nn.Module):
    """Adapts a classification model: its last linear layer becomes ``model.output_layer``.

    Args:
        model: Takes images and ends with a linear layer; modified in place.
        name: Name of the model in error messages.

    Raises:
        ConfigurationError: The model does not end with a linear layer.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        layers = [
            (path, module)
            for path, module in model.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        ]
        path, last = layers[-1]
        if not isinstance(last, nn.Linear):
            raise ConfigurationError(
                f"network {name} ends with a {type(last).__name__}, not with a linear layer: "
                "choose another one"
            )
        model.set_submodule(path, nn.Identity())
        self.head_path = path
        self.backbone = model
        self.model = nn.Module()
        self.model.output_layer = last

    @property
    def trunk(self) -> nn.Module:
        """Computes the latent from images."""
        return self.backbone

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output (N, classes) and latent (N, D) of images (N, 3, H, W)."""
        latent = self.backbone(images)
        return self.model.output_layer(latent), latent  # type: ignore[operator]


class AdaptedResNet(Adapted):
    """Adapts a ResNet of torchvision, or a network of the same structure such as ResNeXt."""

    def latent_and_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the latent, and the output of each of the four stages before its last ReLU."""
        return latent_and_maps(self.backbone, images)


def torchvision_network(name: str, num_classes: int) -> Adapted:
    """Create a classification model of torchvision with random weights.

    Args:
        name: One of ``torchvision.models.list_models(torchvision.models)``.
        num_classes: Number of outputs.

    Raises:
        ConfigurationError: There is no such model, or it does not end with a linear layer.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise ConfigurationError(
            f"torchvision has no classification model {name!r}{nearest_name(name, names)}"
        )
    arguments = _ARGUMENTS.get(name, {})
    model = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    adapt = AdaptedResNet if isinstance(model, models.ResNet) else Adapted
    return adapt(model, f"torchvision:{name}")


def timm_network(name: str, num_classes: int, pretrained: bool = False) -> Adapted:
    """Create a model of timm.

    Args:
        name: One of ``timm.list_models()``.
        num_classes: Number of outputs.
        pretrained: Whether to start from timm's pretrained weights, which it downloads.

    Raises:
        ConfigurationError: timm is not installed, has no such model, or cannot download its
            weights; or the model does not end with one linear layer.
    """
    try:
        import timm
    except ImportError as error:
        raise timm_is_missing(name, error) from error
    if not timm.is_model(name):
        raise ConfigurationError(
            f"timm has no model {name!r}{nearest_name(name, timm.list_models())}"
        )
    if pretrained:
        try:
            model = timm.create_model(name, num_classes=num_classes, pretrained=True)
        except Exception as error:  # those of timm, of the hub, of HTTP clients
            raise _unavailable(name, error) from error
    else:
        model = timm.create_model(name, num_classes=num_classes)
    classifier = model.get_classifier()
    adapted = Adapted(model, f"timm:{name}")
    if adapted.model.output_layer is not classifier:
        raise ConfigurationError(f"network timm:{name} has several output layers: choose another")
    return adapted


def _unavailable(name: str, error: Exception) -> ConfigurationError:
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(name)
    hub, url = getattr(found, "hf_hub_id", None), getattr(found, "url", None)
    bring = f"model.safetensors of https://huggingface.co/{hub}" if hub else url or "them"
    return unavailable(f"timm:{name}", error, bring)
