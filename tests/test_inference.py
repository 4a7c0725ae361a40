"""Inference: batch normalisations folded into convolutions, batches computed in parts."""

import threading

import pytest
import torch
from torch import nn

from iirc_train.methods import METHODS
from iirc_train.methods.forward_passes import Networks
from iirc_train.models import ResNetCIFAR
from iirc_train.models.inference import (
    MAX_INFERENCE_BATCH,
    heuristic_convolutions,
    in_parts,
    inference_batch_size,
    within_memory,
    without_batch_norms,
)
from iirc_train.models.networks import get_network
from iirc_train.testing import MadeUpRun


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


class NormFirst(nn.Sequential):
    """A network that uses its layers in another order than that in which it registers them."""

    def forward(self, x):
        latent = self[0](self[1](x)).mean((2, 3))
        return latent, latent


@torch.inference_mode()
def test_any_network_is_folded_if_an_example_shows_that_nothing_changes():
    net = with_statistics(get_network("torchvision:mobilenet_v3_small")(num_classes=3))
    images = torch.rand(5, 3, 64, 64)
    folded = without_batch_norms(net, images[:2])
    assert n_batch_norms(folded) == 0 < n_batch_norms(net)
    for ours, expected in zip(folded(images), net(images), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    odd = with_statistics(NormFirst(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    assert without_batch_norms(odd, images[:2]) is odd


class KeepsMaps(nn.Module):
    """A network that takes its latent from an attribute, as one with forward hooks does."""

    def __init__(self, calls):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.call = calls.append

    def __deepcopy__(self, memo):
        copied = KeepsMaps([]).eval()
        copied.load_state_dict(self.state_dict())
        copied.call = self.call
        return copied

    def forward(self, x):
        self.maps = self.layers(x)
        self.call((n_batch_norms(self), threading.get_ident()))
        latent = self.maps.mean((2, 3))
        return latent, latent


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_folded_network_of_ones_own_is_called_by_one_thread_only(threads):
    networks, images, calls = Networks(), torch.rand(4, 3, 8, 8), []
    networks.net = with_statistics(KeepsMaps(calls))
    with networks.inference(images[:2]):
        networks.forward_net(images)
    this = threading.get_ident()
    assert calls == [(1, this), (0, this), (0, this)]  # two to compare them


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
    before = set(threading.enumerate())
    with in_parts(forward) as forward_all:
        outputs, latents = forward_all(images)
    assert torch.equal(outputs, images + 1) and torch.equal(latents, images.mean(dim=1))
    assert sum(n for n, _ in used) == n_images
    if n_images == 7:
        n_parts = {1: 1, 2: 2, 6: 3}[threads]
        assert [n for _, n in used] == [threads // n_parts] * n_parts
    assert set(threading.enumerate()) <= before and torch.get_num_threads() == threads
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

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="no image"), in_parts(forward) as forward_all:
        forward_all(torch.rand(4, 3))
    assert set(threading.enumerate()) <= before and torch.get_num_threads() == threads


class Crowded:
    """A device on which no more than ``room`` images fit."""

    def __init__(self, room):
        self.room = room
        self.tried = []

    def __call__(self, images):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return images + 1, images.mean(dim=1)


@pytest.mark.parametrize(("room", "n_images"), [(100, 7), (7, 7), (6, 7), (2, 9), (1, 5), (3, 0)])
def test_what_does_not_fit_into_memory_is_computed_in_parts_and_in_order(room, n_images):
    device = Crowded(room)
    forward = within_memory(device)
    for _ in range(2):
        images = torch.rand(n_images, 5)
        outputs, latents = forward(images)
        assert torch.equal(outputs, images + 1) and torch.equal(latents, images.mean(dim=1))
    failed = [n for n in device.tried if n > room]
    assert len(failed) == len(set(failed))  # no size is tried again
    assert failed == sorted(failed, reverse=True)


def test_an_image_that_does_not_fit_alone_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(Crowded(0))(torch.rand(5, 5))


def test_batches_of_inference_grow_with_the_memory_of_a_gpu_only():
    assert inference_batch_size(96, 32, None) == 96
    for size in (32, 224, 1000):
        found = [inference_batch_size(96, size, free << 30) for free in (0, 1, 4, 16, 80, 1000)]
        assert found == sorted(found) and found[0] == 96 and found[-1] <= MAX_INFERENCE_BATCH
    assert inference_batch_size(128, 32, 70 << 30) == MAX_INFERENCE_BATCH
    assert inference_batch_size(128, 224, 70 << 30) == 512
    assert inference_batch_size(4096, 32, 70 << 30) == 4096


@pytest.mark.parametrize("benchmark", [True, False])
def test_convolutions_are_timed_in_training_only(monkeypatch, benchmark):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    with pytest.raises(ValueError, match="inside"), heuristic_convolutions():
        assert not torch.backends.cudnn.benchmark
        raise ValueError("inside")
    assert torch.backends.cudnn.benchmark is benchmark


@pytest.mark.parametrize("name", METHODS)
def test_the_head_of_every_method_gives_the_same_scores_in_inference(name):
    """A head is traced together with the network whose batch normalisations are folded."""
    torch.manual_seed(0)
    run = MadeUpRun(METHODS[name].model)
    for _ in range(2):
        batch = run.begin_task()
        run.train(batch)
        for _ in run.stages():
            run.train(batch)
        run.end_task()
    method = run.method.eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        expected = method.scores(images)
    with method.inference():
        torch.testing.assert_close(method.scores(images), expected, atol=1e-4, rtol=1e-4)
