"""Batch normalisation folded into convolutions."""

import pytest
import torch
from torch import nn

from iirc_train.models import ResNet, ResNetCIFAR
from iirc_train.models.folding import without_batch_norms


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
    "net", [ResNetCIFAR(num_classes=3, num_layers=20), ResNet(num_classes=3, num_layers=18)]
)
@torch.no_grad()
def test_folded_networks_compute_the_same_without_batch_norms(net):
    net = with_statistics(net).double()
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
    assert without_batch_norms(own) is own
    assert without_batch_norms(training) is training
