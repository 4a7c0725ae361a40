"""Groups of parameters with their own learning rates."""

import copy

import pytest
import torch
from torch import nn

from iirc_train.methods import get_method
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.optimizers import get_optimizer, without
from tests.test_graphed_step import Small, batches

NAMES = {name: i for i, name in enumerate("abc")}


class Grouped(BaseMethod):
    """Learns its head slowly, without weight decay, and never its convolution."""

    def parameter_groups(self):
        head = list(self.net.model.output_layer.parameters())
        frozen = list(self.net.features[0].parameters())
        return [
            {"params": without(self.net.parameters(), [*head, *frozen])},
            {"params": head, "lr_factor": 0.5, "weight_decay": 0.0},
            {"params": frozen, "lr_factor": 0.0},
        ]

    def _loss(self, step):
        return self._bce(step.output, step.targets, step.in_buffer)


def learner(model=Grouped, **settings):
    torch.manual_seed(0)
    settings = {"lr": 0.4, "weight_decay": 0.1, "lr_gamma": 0.1, "lr_schedule": [1], **settings}
    return model([2, 1], NAMES, settings, net=Small(3))


@pytest.mark.parametrize(
    "schedule",
    [{}, {"lr_cosine": True, "lr_schedule": None}, {"reduce_lr_on_plateau": True}],
)
def test_every_schedule_keeps_the_factors(schedule):
    method = learner(**schedule)
    method.prepare_model_for_new_task()
    for _ in range(15):
        first, head, frozen = method.get_last_lr()
        assert head == pytest.approx(0.5 * first) and frozen == 0.0
        method.opt.step()
        method.consolidate_epoch_knowledge(0.5)
    assert first < 0.4
    assert [group["weight_decay"] for group in method.opt.param_groups] == [0.1, 0.0, 0.1]


@pytest.mark.parametrize("name", ["momentum", "sgd", "adam", "adamw"])
def test_a_factor_of_one_is_the_plain_optimizer(name):
    found = []
    for grouped in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        parameters = list(layer.parameters())
        groups = [{"params": [p], "lr_factor": 1.0} for p in parameters]
        optimizer, _ = get_optimizer(groups if grouped else parameters, name, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        found.append([p.detach() for p in parameters])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_factor_of_zero_keeps_parameters_and_the_groups_resume_bit_for_bit():
    method, resumed = learner(), learner()
    before = method.net.features[0].weight.clone()
    shown = batches(2, [6] * 4, 0)
    method.prepare_model_for_new_task()
    for batch in shown[:2]:
        method.training_step(batch)
    method.consolidate_epoch_knowledge()
    resumed.load_method_state_dict(copy.deepcopy(method.method_state_dict()))
    states = []
    for each in (method, resumed):
        torch.manual_seed(1)
        for batch in shown[2:]:
            each.training_step(batch)
        states.append(each.state_dict())
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert torch.equal(method.net.features[0].weight, before)
    assert not torch.equal(method.net.features[1].weight, torch.ones(4))


@pytest.mark.parametrize("name", ["finetune", "lucir"])
def test_the_trunk_may_learn_at_another_rate_than_the_head(name):
    method = learner(get_method(name).model, trunk_lr_factor=0.25)
    for _ in range(2):
        method.prepare_model_for_new_task()
        head, trunk = method.opt.param_groups
        assert (head["lr"], trunk["lr"]) == (0.4, 0.1)
        heads = {id(p) for p in method.net.model.output_layer.parameters()}
        assert {id(p) for p in head["params"]} == heads
        assert len(head["params"]) + len(trunk["params"]) == len(list(method.net.parameters()))
