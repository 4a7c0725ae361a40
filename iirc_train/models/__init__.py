"""Networks, which return ``(output, latent)`` and end with the layer ``model.output_layer``."""

from iirc_train.models.cosine_linear import CosineLinear, SplitCosineLinear
from iirc_train.models.mlp import MLP
from iirc_train.models.networks import NETWORKS, Network, NetworkWithFeatureMaps, make_network
from iirc_train.models.resnet import ResNet
from iirc_train.models.resnetcifar import ResNetCIFAR

__all__ = [
    "MLP",
    "NETWORKS",
    "CosineLinear",
    "Network",
    "NetworkWithFeatureMaps",
    "ResNet",
    "ResNetCIFAR",
    "SplitCosineLinear",
    "make_network",
]
