"""Losses of methods that draw memories, on a toy network, computed again from their equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iirc_data.loader.batch import Batch, batch_with_draws
from iirc_train.methods import METHODS

SEEN = 4  # in the second task, of 6 classes


class Toy(nn.Module):
    """A network in which batch statistics matter."""

    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.norm = nn.BatchNorm1d(5)
        self.model.output_layer = nn.Linear(5, 6)

    def forward(self, x):
        latent = self.model.norm(x)
        return self.model.output_layer(latent), latent


def made(name, **settings):
    torch.manual_seed(1)
    names = {f"c{number}": number for number in range(6)}
    config = {"lr": 0.1, "weight_decay": 0.0, "optimizer": "sgd", "momentum": 0.0, **settings}
    method = METHODS[name].model([2, 2, 2], names, config, net=Toy())
    method.prepare_model_for_new_task()
    method.prepare_model_for_new_task()
    method.train()
    return method


def batch_of(n, classes, loss, in_buffer=False):
    labels = torch.tensor([classes[i % len(classes)] for i in range(n)])
    targets = F.one_hot(labels, SEEN).float()
    if loss == "bce":
        targets[0, 0] = 1  # a second label
    return Batch(torch.randn(n, 5), targets, torch.full((n,), in_buffer), torch.arange(n))


@pytest.fixture(params=["bce", "ce"])
def loss(request) -> str:
    return request.param


@pytest.fixture
def step(loss):
    """A batch of new classes with two draws; kept logits are of 2, 4 or all classes."""
    torch.manual_seed(0)
    stream = batch_of(8, [2, 3], loss)
    draws = []
    for n in (6, 5):
        kept = torch.randn(n, 6)
        kept[: n // 2, 2:] = torch.nan
        kept[n // 2 :, 4:] = torch.nan
        draws.append((batch_of(n, [0, 1, 2], loss, in_buffer=True), {"logits": kept}))
    return batch_with_draws(stream, *draws), stream, draws


def classified(loss, logits, targets):
    if loss == "ce":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def outputs(method, *images, joint=False):
    net = method.net
    if joint:
        return net(torch.cat(images))[0].split([len(x) for x in images])
    return [net(x)[0] for x in images]


def with_draws(step, n):
    _, stream, draws = step
    return batch_with_draws(stream, *draws[:n]), stream, draws


@pytest.mark.parametrize("classes", ["seen", "all"])
@pytest.mark.parametrize("forward_pass", ["joint", "separate"])
@pytest.mark.parametrize("name", ["er", "der", "der_plus_plus", "er_ace"])
def test_a_step_minimises_the_sum_of_its_equations(name, step, loss, forward_pass, classes):
    n_draws = 2 if name == "der_plus_plus" else 1
    batch, stream, draws = with_draws(step, n_draws)
    own = {"forward_pass": forward_pass, "output_classes": classes, "loss": loss}
    method, expected = made(name, **own), made(name, **own)
    images = [stream.images, *(memories.images for memories, _ in draws[:n_draws])]
    z = outputs(expected, *images, joint=forward_pass == "joint")
    width = SEEN if classes == "seen" else 6
    targets = [F.pad(b.targets, (0, width - SEEN)) for b in (stream, draws[0][0], draws[1][0])]
    logits = [each[:, :width] for each in z]
    if name == "er":
        value = classified(loss, torch.cat(logits), torch.cat(targets[:2]))
    elif name == "er_ace":
        present = [2, 3, *range(SEEN, width)]
        if loss == "bce":
            present = [0, *present]  # of the second label
        chosen = classified(loss, logits[0][:, present], targets[0][:, present])
        if loss == "bce":  # a mean over all classes, of which absent ones add nothing
            chosen = chosen * len(present) / width
        value = chosen + classified(loss, logits[1], targets[1])
    else:
        value = classified(loss, logits[0], targets[0])
        kept = draws[0][1]["logits"]
        rows = []
        for row in range(len(kept)):
            n = 2 if row < len(kept) // 2 else 4
            rows.append((z[1][row, :n] - kept[row, :n]).square().mean())
        value = value + 0.3 * torch.stack(rows).mean()
        if name == "der_plus_plus":
            value = value + 0.5 * classified(loss, logits[2], targets[2])
    expected.opt.zero_grad()
    value.backward()
    expected.opt.step()
    predictions, found = method.training_step(batch)
    assert predictions.shape == (8, SEEN)
    assert found.item() == pytest.approx(value.item(), abs=1e-6)
    for (key, ours), theirs in zip(
        method.net.state_dict().items(), expected.net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=key)
    if name.startswith("der"):
        kept = method.columns_of_step["logits"]
        torch.testing.assert_close(kept, z[0][:, :SEEN])
        assert not kept.requires_grad


@pytest.mark.parametrize("distance", ["norm", "reference"])
def test_der_measures_the_distance_of_logits_as_asked(step, loss, distance):
    batch, stream, draws = with_draws(step, 1)
    kept = torch.randn(6, 6)
    kept_for = kept.clone()
    if distance == "norm":
        kept_for[:, 2:] = torch.nan
    batch = batch_with_draws(stream, (draws[0][0], {"logits": kept_for}))
    method = made("der", loss=loss, logit_distance=distance, der_alpha=0.7)
    z = outputs(made("der", loss=loss), stream.images, draws[0][0].images)
    value = classified(loss, z[0][:, :SEEN], stream.targets)
    if distance == "norm":
        value = value + 0.7 * (z[1] - kept)[:, :2].square().sum(dim=1).mean()
    else:
        value = value + 0.7 * F.mse_loss(z[1], kept)
    _, found = method.training_step(batch)
    assert found.item() == pytest.approx(value.item(), abs=1e-6)
    assert method.columns_of_step["logits"].shape == (8, SEEN if distance == "norm" else 6)


def test_er_ace_learns_its_first_task_plainly_if_asked(step):
    stream = batch_of(8, [0], "ce")
    memories = batch_of(6, [0, 1], "ce", in_buffer=True)
    for first_task, n_terms in (("paper", 2), ("reference", 1)):
        method = made("er_ace", first_task=first_task, loss="ce")
        method.cur_task_id = 0
        z = outputs(made("er_ace"), stream.images, memories.images)
        parts = [
            Batch(b.images, b.targets[:, :2], b.in_buffer, b.sample_ids) for b in (stream, memories)
        ]
        _, found = method.training_step(batch_with_draws(parts[0], (parts[1], {})))
        if n_terms == 1:
            expected = F.cross_entropy(z[0][:, :2], stream.targets[:, :2])
        else:  # the only class of the batch competes with no other
            expected = F.cross_entropy(z[1][:, :2], memories.targets[:, :2])
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_er_ace_can_classify_by_cosines():
    method = made("er_ace", cosine_head=True)
    x = torch.randn(4, 5)
    output, latent = method.net(x)
    weight = method.net.model.output_layer.weight
    assert output.shape == (4, 6)
    cosines = F.cosine_similarity(latent.unsqueeze(1), weight.unsqueeze(0), dim=2)
    torch.testing.assert_close(output, 10 * cosines, atol=1e-3, rtol=0)


def test_the_settings_of_memories_weigh_in_every_replayed_loss(step, loss):
    """memory_strength counts where labels are replayed, in_buffer or drawn."""
    batch, stream, draws = with_draws(step, 1)
    z = outputs(made("er", loss=loss), stream.images, draws[0][0].images, joint=True)
    each = [classified(loss, z[0][:, :SEEN], stream.targets) * 8]
    each.append(3 * classified(loss, z[1][:, :SEEN], draws[0][0].targets) * 6)
    _, found = made("er", loss=loss, memory_strength=3.0).training_step(batch)
    assert found.item() == pytest.approx((sum(each) / 14).item(), abs=1e-6)
