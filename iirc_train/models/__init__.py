"""Networks. Each returns ``(output, latent)`` and keeps its last layer in ``model.output_layer``."""

from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR

__all__ = ["ResNet", "ResNetCIFAR"]
