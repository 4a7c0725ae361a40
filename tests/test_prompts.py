"""Prompts: a toy method that learns tokens for a frozen vision transformer."""

import copy

import pytest
import torch
from torchvision.models import VisionTransformer

from iirc_data.errors import ConfigurationError
from iirc_train.methods.base_method import BaseMethod
from iirc_train.models.adapted import Adapted
from iirc_train.models.frozen import is_wholly_frozen
from iirc_train.models.prompts import (
    TokenPrompt,
    attach_prompt,
    detach_prompt,
    prompts_of,
    without_prompts,
)
from iirc_train.testing import MadeUpRun
from iirc_train.testing.made_up import N_CLASSES

SIZE = 8


class Prompting(BaseMethod):
    """Learns tokens for each task, with the head, and keeps those of earlier tasks."""

    losses = ("bce",)
    adds_prompts = True

    def _prepare_model_for_new_task(self, *args, **kwargs):
        for prompt in prompts_of(self.net).values():
            prompt.requires_grad_(False)
        prompt = TokenPrompt(2, SIZE)
        attach_prompt(self.net, f"task_{self.cur_task_id}", prompt, before="encoder.layers")

    def _loss(self, step):
        return self._bce(step.output, step.targets, step.in_buffer)


def tiny_transformer():
    torch.manual_seed(0)
    model = VisionTransformer(32, 16, 2, 2, SIZE, 16, num_classes=N_CLASSES)
    torch.nn.init.normal_(model.heads.head.weight)  # zeros would give the trunk no gradient
    return Adapted(model, "tiny")


def learned(n_tasks):
    run = MadeUpRun(Prompting, tiny_transformer(), frozen=True)
    for _ in range(n_tasks):
        run.train(run.begin_task())
        run.end_task()
    return run.method


IMAGES = torch.rand(2, 3, 32, 32)


def test_tokens_of_each_task_are_learned_beside_a_frozen_network_and_are_in_the_checkpoint():
    method, before = learned(2), tiny_transformer()
    states = [m.net.backbone.state_dict() for m in (method, Prompting([1], {"a": 0}, {}, before))]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not is_wholly_frozen(method.net)
    first, second = prompts_of(method.net).values()
    assert not first.tokens.requires_grad and second.tokens.grad.abs().sum() > 0
    state = copy.deepcopy(method.method_state_dict())
    resumed = MadeUpRun(Prompting, tiny_transformer(), frozen=True).method
    resumed.load_method_state_dict(state)
    assert prompts_of(resumed.net).keys() == {"task_0", "task_1"}
    trained = {id(p) for group in resumed.opt.param_groups for p in group["params"]}
    assert id(prompts_of(resumed.net)["task_1"].tokens) in trained
    for each in (method, resumed):
        each.eval()
    with torch.no_grad():
        assert torch.equal(resumed.net(IMAGES)[1], method.net(IMAGES)[1])


@torch.no_grad()
def test_prompts_change_latents_and_a_copy_of_the_network_has_its_own():
    net = tiny_transformer().eval()
    plain = net(IMAGES)[1]
    attach_prompt(net, "mine", TokenPrompt(3, SIZE), before="encoder.layers")
    prompted = net(IMAGES)[1]
    assert not torch.allclose(prompted, plain, atol=1e-6)
    with without_prompts(net):
        assert torch.equal(net(IMAGES)[1], plain)
    copied = copy.deepcopy(net)
    prompts_of(net)["mine"].tokens.mul_(50)
    assert torch.equal(copied(IMAGES)[1], prompted)
    assert not torch.equal(net(IMAGES)[1], prompted)
    attach_prompt(net, "mine", torch.nn.Identity())
    assert torch.equal(net(IMAGES)[1], plain)
    detach_prompt(copied, "mine")
    assert torch.equal(copied(IMAGES)[1], plain)
    assert not prompts_of(copied)


@torch.no_grad()
def test_a_prompt_may_transform_images():
    net = tiny_transformer().eval()
    expected = net(1 - IMAGES)[1]

    class Inverse(torch.nn.Module):
        def forward(self, images):
            return 1 - images

    attach_prompt(net, "inverse", Inverse())
    assert torch.equal(net(IMAGES)[1], expected)


def test_a_stage_that_the_network_lacks_is_an_error():
    with pytest.raises(ConfigurationError, match="has no stage 'blocks' for the prompt 'mine'"):
        attach_prompt(tiny_transformer(), "mine", TokenPrompt(1, SIZE), before="blocks")
