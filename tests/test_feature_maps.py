"""Feature maps: from the same pass as the output, of any network that names its stages."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.models import NETWORKS
from iirc_train.models.compiled import NetworkCompiler
from iirc_train.models.feature_maps import WithFeatureMaps, forward_with_maps
from iirc_train.models.networks import get_network
from iirc_train.testing import check_never_waits
from iirc_train.training.graphed_step import GraphedStep
from tests.tape import TapeCapture
from tests.test_compiled import compilations  # noqa: F401
from tests.test_graphed_step import FULL, batches, learn


class Staged(nn.Module):
    """Names its stages; the second one is not the last module."""

    stages = ("first", "rest.0")

    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4))
        self.rest = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten())
        self.model = nn.Module()
        self.model.output_layer = nn.Linear(4, num_classes)

    def forward(self, images):
        latent = self.rest(F.relu(self.first(images)))
        return self.model.output_layer(latent), latent


class Comparing(BaseMethod):
    """Keeps the squares of the feature maps where the teacher's are."""

    capturable = True
    compares_feature_maps = True

    def _prepare_model_for_new_task(self, *args, **kwargs):
        if self.cur_task_id > 0:
            self.old_net = copy_freeze(self.net)

    def _loss(self, step):
        loss = self._validation_loss(step)
        if self.old_net is None:
            return loss
        _, _, teachers = self.forward_old_net_with_maps(step.images)
        pairs = zip(step.maps, teachers, strict=True)
        return loss + sum((ours.square() - old.square()).abs().mean() for ours, old in pairs)

    def _validation_loss(self, step):
        return self._bce(step.output, step.targets, step.in_buffer)


@pytest.fixture(autouse=True)
def staged(monkeypatch):
    monkeypatch.setitem(NETWORKS, "staged", Staged)


def comparing(network="staged", **settings):
    torch.manual_seed(0)
    names = {name: i for i, name in enumerate("abc")}
    return Comparing([2, 1], names, {"network": network, "lr": 0.1, **settings})


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet8_a", "resnet18_cifar", "torchvision:resnet18", "resnet50", "staged"]
)
@torch.no_grad()
def test_a_single_pass_gives_output_latent_and_maps(name):
    net = get_network(name)(num_classes=3)
    n_passes = []
    convolution = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda *_: n_passes.append(1))
    images = torch.rand(2, 3, 7 if name == "staged" else 40, 7 if name == "staged" else 40)
    expected = net(images)
    output, latent, maps = forward_with_maps(net, images)
    assert len(n_passes) == 2
    assert torch.equal(output, expected[0]) and torch.equal(latent, expected[1])
    assert all(len(each) == 2 and each.dim() == 4 for each in maps)
    if name == "staged":
        assert torch.equal(F.relu(maps[-1]).flatten(1), latent)
        return
    ends_with_relu = name != "resnet8"
    last = F.relu(maps[-1]) if ends_with_relu else maps[-1]
    torch.testing.assert_close(last.mean(dim=(2, 3)), latent)
    assert min(each.min() for each in maps) < 0  # before the ReLU
    assert len(maps) == (3 if name.startswith("resnet8") else 4)


@pytest.mark.parametrize("name", ["resnet8", "resnet18_cifar"])
def test_maps_are_the_stages_outputs_before_the_relu_and_gradients_pass_through_them(name):
    net = get_network(name)(num_classes=3)
    images = torch.rand(2, 3, 16, 16)
    _, _, maps = forward_with_maps(net, images)
    after = net.feature_maps(images)
    assert all(torch.equal(F.relu(a), F.relu(b)) for a, b in zip(maps, after, strict=True))
    assert not torch.equal(maps[0], after[0])
    sum(each.square().sum() for each in maps).backward()
    head = set(net.model.output_layer.parameters())
    assert all(p.grad.abs().sum() > 0 for p in net.parameters() if p not in head)


def test_a_stage_that_is_overwritten_later_is_an_error():
    class Overwriting(Staged):
        def forward(self, images):
            latent = self.rest(self.first(images).relu_())
            return self.model.output_layer(latent), latent

    with pytest.raises(ConfigurationError, match=r"Overwriting overwrites .* 'first': use inplace"):
        forward_with_maps(Overwriting(3), torch.rand(2, 3, 7, 7))


@pytest.mark.parametrize(
    ("stages", "message"),
    [((), "names no stages: list"), (("first", "second"), "stages names 'second', but")],
)
def test_a_network_without_stages_is_refused_when_the_method_is_created(stages, message):
    net = Staged(3)
    net.stages = stages
    with pytest.raises(ConfigurationError, match=message):
        Comparing([2, 1], {name: i for i, name in enumerate("abc")}, {}, net=net)


def test_no_hook_and_no_map_is_left_behind():
    net = Staged(3)
    forward_with_maps(net, torch.rand(2, 3, 7, 7))
    assert not any(module._forward_hooks for module in net.modules())
    copied = copy_freeze(net)
    assert copied(torch.rand(2, 3, 7, 7))[0].shape == (2, 3)


def test_other_methods_never_ask_for_maps(monkeypatch):
    class Plain(Comparing):
        compares_feature_maps = False

        def _loss(self, step):
            assert step.maps == ()
            return self._validation_loss(step)

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("iirc_train.methods.forward_passes.forward_with_maps", refuse)
    method = Plain([2, 1], {name: i for i, name in enumerate("abc")}, {"network": "staged"})
    method.prepare_model_for_new_task()
    method.training_step(batches(2, [FULL], 0)[0])


def steps(method):
    """Learn three batches in each task; return losses and final weights."""
    losses = []
    for _ in range(2):
        method.prepare_model_for_new_task()
        method.train()
        for batch in batches(method.n_seen_classes, [3, 3, 2], method.cur_task_id):
            losses.append(method.training_step(batch)[1])
    return [*losses, *method.net.state_dict().values()]


def connected(method, wrap):
    """Let the training steps of every task go through wrappers."""
    prepare = method.prepare_model_for_new_task

    def prepare_and_wrap(*args, **kwargs):
        prepare(*args, **kwargs)
        method.train_through(*wrap(method))

    method.prepare_model_for_new_task = prepare_and_wrap
    return method


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_compiled_network_gives_the_same_maps(compilations):  # noqa: F811
    compiler = NetworkCompiler(3)

    def wrap(method):
        net, *teachers = compiler.compiled(method.net, method.old_net)
        return method.as_called(net), *teachers

    expected = steps(comparing("resnet8"))
    assert equal(steps(connected(comparing("resnet8"), wrap)), expected)
    assert len(compilations) == 2  # the network, and the teacher without gradients


def test_a_wrapper_of_the_network_gives_the_same_maps():
    def wrap(method):
        return nn.Sequential(method.as_called(method.net)), None

    found = steps(connected(comparing("resnet8"), wrap))
    assert equal(found, steps(comparing("resnet8")))
    assert isinstance(comparing("resnet8").as_called(nn.Identity()), WithFeatureMaps)


def test_a_captured_step_with_maps_learns_what_an_eager_one_does():
    settings = {"lr_schedule": [2], "lr_gamma": 0.5}
    eager, graphed = (comparing(**settings) for _ in range(2))
    expected = learn(eager, eager.training_step)
    assert equal(learn(graphed, GraphedStep(graphed, FULL, TapeCapture())), expected)


def test_maps_are_float32_where_the_network_computes_in_bfloat16():
    method = comparing("resnet8")
    method.autocast_dtype = torch.bfloat16
    method.prepare_model_for_new_task()
    method.prepare_model_for_new_task()
    images = torch.rand(2, 3, 16, 16)
    for forward in (method.forward_net_with_maps, method.forward_old_net_with_maps):
        assert {t.dtype for t in forward(images)[2]} == {torch.float32}


def test_no_step_with_maps_waits():
    check_never_waits(Comparing, autocast_dtype=torch.bfloat16)
