"""Inference: batch normalisations folded into convolutions, batches computed in parts."""

import threading

import pytest
import torch
from torch import nn

from iirc_train.models import ResNetCIFAR
from iirc_train.models.inference import in_parts, without_batch_norms
from iirc_train.models.networks import get_network


def with_statistics(net):
    """Give batch normalisations something that they do."""
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 2, generator=generator)
            nn.init.uniform_(layer.bias, -1, 1, generator=generator)
    return net.eval()


def n_batch_norms(net):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


@pytest.mark.parametrize(
    "name", ["resnet20", "resnet20_a", "resnet18", "resnet50", "resnet18_cifar"]
)
@torch.no_grad()
def test_folded_networks_compute_the_same_without_batch_norms(name):
    net = with_statistics(get_network(name)(num_classes=3)).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = torch.rand(2, 3, 32, 32, dtype=torch.double)
    folded = without_batch_norms(net)
    for ours, expected in zip(folded(images), net(images), strict=True):
        torch.testing.assert_close(ours, expected)
    assert n_batch_norms(folded) == 0 < n_batch_norms(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_networks_of_ones_own_and_in_training_stay_as_they_are():
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    training = ResNetCIFAR(num_classes=3, num_layers=20)
    adapted = get_network("torchvision:mobilenet_v3_small")(num_classes=3).eval()
    assert without_batch_norms(own) is own
    assert without_batch_norms(adapted) is adapted
    assert without_batch_norms(training) is training


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 6], indirect=True)
@pytest.mark.parametrize("n_images", [0, 1, 7])
def test_a_batch_in_parts_is_the_whole_batch_in_order(threads, n_images):
    def forward(images):
        assert torch.is_inference_mode_enabled() or threads == 1
        used.append((len(images), torch.get_num_threads()))
        return images + 1, images.mean(dim=1)

    used = []
    images = torch.rand(n_images, 5)
    before = threading.active_count()
    with in_parts(forward) as forward_all:
        outputs, latents = forward_all(images)
    assert torch.equal(outputs, images + 1) and torch.equal(latents, images.mean(dim=1))
    assert sum(n for n, _ in used) == n_images
    if n_images == 7:
        n_parts = {1: 1, 2: 2, 6: 3}[threads]
        assert [n for _, n in used] == [threads // n_parts] * n_parts
    assert threading.active_count() == before and torch.get_num_threads() == threads
    assert threading_default() == threads


def threading_default():
    """Threads that an operator of a new thread uses."""
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_what_fails_in_a_part_is_told_and_leaves_nothing_behind(threads):
    def forward(images):
        raise ValueError("no image")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no image"), in_parts(forward) as forward_all:
        forward_all(torch.rand(4, 3))
    assert threading.active_count() == before and torch.get_num_threads() == threads
