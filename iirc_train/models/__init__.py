"""Networks: each returns ``(output, latent)``, its last layer is ``model.output_layer``."""

from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR

__all__ = ["ResNet", "ResNetCIFAR"]
