"""torch.compile: trunk and teacher are compiled once per run, and compute the same."""

import pytest
import torch
from torch import nn

from iirc_data.loader import Batch
from iirc_train.methods import get_method
from iirc_train.models import NETWORKS
from iirc_train.models.compiled import NetworkCompiler, trunk_of
from iirc_train.models.networks import get_network

CLASSES_PER_TASK = [2] * 10  # more tasks than torch keeps versions of compiled code
FULL = 3


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Flatten())
        self.model = nn.Module()
        self.model.output_layer = nn.Linear(36, num_classes)

    def forward(self, images):
        latent = self.trunk(images)
        return self.model.output_layer(latent), latent


class Whole(Tiny):
    """Names no trunk."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.features = self.trunk
        del self.trunk

    def forward(self, images):
        latent = self.features(images)
        return self.model.output_layer(latent), latent


@pytest.fixture
def compilations(monkeypatch):
    """Compile without generating code; return the compilations so far."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **more: real(f, backend=backend, **more))
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    monkeypatch.setitem(NETWORKS, "whole", Whole)
    yield graphs
    torch.compiler.reset()


def learn(name: str, network: str, compilations=None):
    """Learn ten tasks; return losses, and the number of compilations after each task."""
    torch.manual_seed(0)
    names = {f"class {i}": i for i in range(sum(CLASSES_PER_TASK))}
    method = get_method(name).model(CLASSES_PER_TASK, names, {"network": network, "lr": 0.01})
    compiler = None if compilations is None else NetworkCompiler(FULL)
    losses, counts = [], []
    for _ in CLASSES_PER_TASK:
        method.prepare_model_for_new_task()
        if compiler is not None:
            method.train_through(*compiler.compiled(method.net, method.old_net))
            counts.append(len(compilations))
        method.train()
        for n in (FULL, FULL, 2):
            targets = torch.eye(method.n_seen_classes)[:n].repeat(n, 1)[:n]
            images = torch.rand(n, 3, 8, 8).to(memory_format=torch.channels_last)
            batch = Batch(images, targets, torch.zeros(n, dtype=torch.bool), torch.arange(n))
            losses.append(method.training_step(batch)[1])
        with method.inference():
            losses.append(method.forward_net(images)[0].sum())
    counts.append(0 if compilations is None else len(compilations))
    return losses, counts


@pytest.mark.parametrize("method", ["icarl_cnn", "lucir", "icarl_norm"])
def test_trunk_and_teacher_are_compiled_once_and_compute_the_same(compilations, method):
    expected, _ = learn(method, "tiny")
    found, counts = learn(method, "tiny", compilations)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert counts == [0, 1] + [2] * 9  # the network in the first task, the teacher in the second


def test_branches_share_the_compiled_trunk(compilations):
    """One version learns, one is frozen and runs beside it, however many branches there are."""
    expected, _ = learn("der_expandable", "tiny")
    found, counts = learn("der_expandable", "tiny", compilations)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert counts == [0, 1] + [2] * 9


@pytest.mark.parametrize(("method", "n"), [("icarl_cnn", 2), ("lucir", 19)])
def test_a_network_without_a_trunk_is_compiled_as_often_as_its_head_changes(
    compilations, method, n
):
    expected, _ = learn(method, "whole")
    found, counts = learn(method, "whole", compilations)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert counts[-1] == n


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet18_cifar", "mlp", "torchvision:mobilenet_v3_small"]
)
@torch.no_grad()
def test_the_trunk_of_a_network_computes_its_latent(name):
    sized = {"image_size": 32} if name == "mlp" else {}
    net = get_network(name)(num_classes=3, **sized).eval()
    images = torch.rand(2, 3, 32, 32)
    trunk = trunk_of(net)
    assert trunk is not None and torch.equal(trunk(images), net(images)[1])
