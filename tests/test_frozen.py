"""Frozen networks: what is frozen stays as it was, and the rest learns."""

import copy

import pytest
import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods import METHODS
from iirc_train.models.frozen import freeze_until, frozen_parameters, is_wholly_frozen, stages_of
from iirc_train.models.networks import get_network
from iirc_train.testing.made_up import TASKS, MadeUpRun
from tests.small_network import Small

N_CLASSES = sum(map(len, TASKS))
NEED_TRUNK = {name for name in METHODS if METHODS[name].model.trains_trunk}


def run_of(name, net, **settings):
    return MadeUpRun(METHODS[name].model, net, **settings)


def learn(run, n_tasks=2):
    for _ in range(n_tasks):
        batch = run.begin_task()
        run.train(batch)
        for _ in run.stages():
            run.train(batch)
        run.end_task()


def trunk_state(net):
    """Return what a latent depends on: parameters and running statistics."""
    return {n: v.clone() for n, v in net.state_dict().items() if "output_layer" not in n}


def parameters_of(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("name", sorted(set(METHODS) - NEED_TRUNK))
def test_with_a_frozen_trunk_each_method_learns_its_head_and_nothing_else(name):
    torch.manual_seed(0)
    net = Small(N_CLASSES)
    run = run_of(name, net, frozen=True)
    before = trunk_state(net)
    images = torch.rand(2, 3, 32, 32)
    latent = net(images)[1]
    learn(run)
    method = run.method
    assert is_wholly_frozen(method.net)
    after = trunk_state(method.net)
    assert after.keys() >= before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(method.train().net(images)[1], latent)  # no dropout, no statistics
    frozen = {id(parameter) for parameter in frozen_parameters(method.net)}
    trained = parameters_of(method.opt)
    assert trained and not frozen & {id(parameter) for parameter in trained}
    assert all(parameter.grad is None for parameter in frozen_parameters(method.net))
    if any(parameter.grad is not None for parameter in trained):
        assert not any(module.training for module in method.net.features.modules())


@pytest.mark.parametrize("name", sorted(NEED_TRUNK))
def test_methods_that_grow_trunks_refuse_a_frozen_one_and_take_a_part(name):
    with pytest.raises(ConfigurationError, match=f"^frozen: method {name} trains a .*frozen_until"):
        run_of(name, Small(N_CLASSES), frozen=True)
    run = run_of(name, Small(N_CLASSES), frozen_until="features.2")
    before = copy.deepcopy(run.method.net.branches[0].features)
    learn(run)
    for branch in run.method.net.branches:
        for key, value in branch.features.state_dict().items():
            assert torch.equal(value, before.state_dict()[key]), key
    assert not frozen_parameters(run.method.net)[0].requires_grad


def test_a_part_of_the_network_is_frozen_up_to_and_with_its_stage():
    torch.manual_seed(0)
    net = get_network("resnet8")(num_classes=N_CLASSES)
    stage = stages_of(net)[1]
    run = run_of("finetune", net, frozen_until=stage, trunk_lr_factor=0.5)
    before = {n: v.clone() for n, v in net.state_dict().items()}
    learn(run)
    changed = {n for n, v in net.state_dict().items() if not torch.equal(v, before[n])}
    names = list(net.model.state_dict())
    last = max(i for i, n in enumerate(names) if n.startswith(f"{stage}."))
    expected = {f"model.{n}" for n in names[last + 1 :]}
    assert changed == expected and 0 < len(expected) < len(names)
    head, trunk = run.method.opt.param_groups
    assert (head["lr"], trunk["lr"]) == (0.1, 0.05)
    assert (
        len(trunk["params"]) == len([n for n, p in net.named_parameters() if p.requires_grad]) - 2
    )


def test_position_embeddings_before_a_frozen_stage_are_frozen_too():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4))
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.norm = nn.LayerNorm(4)
            self.model = nn.Module()
            self.model.output_layer = nn.Linear(4, 2)

    net = Tokens().train()
    assert stages_of(net) == ["blocks.0", "blocks.1", "blocks.2", "blocks", "norm"]
    freeze_until(net, "blocks.1", "mine")
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {f"{m}.{p}" for m in ("blocks.2", "norm") for p in ("weight", "bias")} | {
        "model.output_layer.weight",
        "model.output_layer.bias",
    }
    assert [block.training for block in net.blocks] == [False, False, True] and net.training
    message = r"network mine has no stage 'blocks.3': choose blocks.0, .*norm; did you mean"
    with pytest.raises(ConfigurationError, match=message):
        freeze_until(net, "blocks.3", "mine")
    with pytest.raises(ConfigurationError, match=r"no stage 'model\.output_layer'"):
        freeze_until(net, "model.output_layer", "mine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": True, "frozen_until": "layer1"}, "set only one"),
        ({"frozen": True, "trunk_lr_factor": 0.1}, "no effect on a frozen trunk"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        MethodConfig.parse(settings)


@pytest.mark.parametrize("name", ["frozen_until", "weights"])
def test_gdumb_refuses_to_start_again_from_weights_that_are_not_random(name, monkeypatch):
    monkeypatch.setattr("iirc_train.models.networks.add_weights", lambda *_: None)
    with pytest.raises(ConfigurationError, match=f"^{name} blocks: method gdumb starts each task"):
        run_of("gdumb", None, network="resnet8", n_layers=None, **{name: "blocks"})
