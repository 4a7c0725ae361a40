"""Networks that grow branches, and the methods der_expandable and foster on them."""

import copy

import pytest
import torch
import torch.nn.functional as F

from iirc_data.loader import Batch
from iirc_train.methods import METHODS
from iirc_train.models.branches import BranchedNetwork, align_new_weights
from iirc_train.models.compiled import trunks_of
from iirc_train.models.inference import without_batch_norms
from iirc_train.models.networks import get_network
from iirc_train.testing.made_up import MadeUpSamples
from tests.small_network import Small
from tests.test_inference import n_batch_norms, with_statistics

NAMES = {f"c{i}": i for i in range(5)}


def grown(name="resnet8", n_branches=3):
    net = BranchedNetwork(get_network(name)(num_classes=7), 2)
    for n in range(1, n_branches):
        net.grow(2 + n)
    return net


@pytest.mark.parametrize("name", ["resnet8", "torchvision:mobilenet_v3_small"])
@torch.no_grad()
def test_a_grown_network_keeps_what_it_computed(name):
    torch.manual_seed(0)
    net = with_statistics(BranchedNetwork(get_network(name)(num_classes=7), 2))
    images = torch.rand(2, 3, 32, 32)
    output, latent = net(images)
    net.grow(3)
    net.eval()
    net.head.weight[:, net.latent_size :] = 0
    wider, both = net(images)
    torch.testing.assert_close(wider[:, :2], output)
    torch.testing.assert_close(net.of_old_branches(both), latent)
    torch.testing.assert_close(net.of_new_branch(both), latent)  # it starts as a copy
    assert len(trunks_of(net)) == 2


def test_frozen_branches_neither_learn_nor_change_their_statistics():
    torch.manual_seed(0)
    net = grown().train()
    before = copy.deepcopy(net.state_dict())
    opt = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.1)
    F.cross_entropy(net(torch.rand(4, 3, 32, 32))[0], torch.arange(4)).backward()
    opt.step()
    same = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith(("branches.0", "branches.1"))}
    assert same == frozen
    alone = net.single(0, net.new_head(4))
    assert all(parameter.requires_grad for parameter in alone.parameters())
    assert alone.train().branches[0].training


@torch.no_grad()
def test_branches_are_folded_and_compute_the_same():
    net = with_statistics(grown()).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.double)
    folded = without_batch_norms(net)
    for ours, expected in zip(folded(images), net(images), strict=True):
        torch.testing.assert_close(ours, expected)
    assert n_batch_norms(folded) == 0 < n_batch_norms(net)
    own = BranchedNetwork(Small(3), 2).eval()
    assert without_batch_norms(own) is own


def test_aligned_weights_of_new_classes_are_as_long_as_the_others():
    weight = torch.randn(5, 4)
    before = weight.clone()
    align_new_weights(weight, 3)
    assert torch.equal(weight[:3], before[:3])
    assert float(weight[3:].norm(dim=1).mean()) == pytest.approx(
        float(before[:3].norm(dim=1).mean())
    )
    torch.testing.assert_close(F.normalize(weight), F.normalize(before))


def second_task(name, **settings):
    """Return a method in its second task, and a batch of old and new classes."""
    torch.manual_seed(0)
    settings = {"loss": "ce", "lr": 0.1, "weight_decay": 0.0, **settings}
    method = METHODS[name].model([2, 3], NAMES, settings, net=Small(5))
    method.prepare_model_for_new_task()
    memories = MadeUpSamples(("c0", "c1"), 0, torch.device("cpu"))
    memories.labels = ["c0"] * 4 + ["c1"] * 2
    data = MadeUpSamples(("c2", "c3", "c4"), 1, torch.device("cpu"))
    data.cur_task = ("c2", "c3", "c4")
    data.labels = ["c2"] * 20 + ["c3"] * 20 + ["c4"] * 20
    method.prepare_model_for_new_task(data, buffer=memories)
    with torch.no_grad():
        for parameter in method.net.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    labels = torch.tensor([0, 1, 2, 3, 4, 4])
    batch = Batch(torch.rand(6, 3, 32, 32), F.one_hot(labels).float(), labels < 2, labels)
    return method.eval(), batch, labels


def loss_of(method, batch):
    """Return the loss of a training step, and output and latent before it, without dropout."""
    with torch.no_grad():
        output, latent = method.net(batch.images)
    return float(method.training_step(batch)[1]), output, latent


def test_ders_auxiliary_classifier_takes_the_earlier_classes_as_one():
    method, batch, labels = second_task("der_expandable", auxiliary_weight=0.5)
    head = copy.deepcopy(method.net.auxiliary_head)
    loss, output, latent = loss_of(method, batch)
    auxiliary = F.cross_entropy(head(latent[:, 36:]), torch.tensor([0, 0, 1, 2, 3, 3]))
    assert loss == pytest.approx((F.cross_entropy(output, labels) + 0.5 * auxiliary).item())


def test_ders_binary_auxiliary_target_is_whether_any_earlier_label_is_shown():
    method, batch, _ = second_task("der_expandable", loss="bce")
    batch.targets[2, 0] = batch.targets[0, 1] = 1  # an earlier label of a sample of the task
    head = copy.deepcopy(method.net.auxiliary_head)
    loss, output, latent = loss_of(method, batch)
    is_old = torch.tensor([1.0, 1, 1, 0, 0, 0]).unsqueeze(1)
    targets = torch.cat((is_old, batch.targets[:, 2:]), dim=1)
    expected = F.binary_cross_entropy_with_logits(output, batch.targets)
    expected += F.binary_cross_entropy_with_logits(head(latent[:, 36:]), targets)
    assert loss == pytest.approx(expected.item())


def test_der_retrains_a_new_classifier_with_a_temperature():
    method, batch, labels = second_task("der_expandable", memory_strength=3.0)
    (stage,) = method.stages_of_task(1)
    assert (stage.data, stage.epochs, stage.settings["lr_schedule"]) == ("balanced", 30, [15])
    before = method.net.head.weight.clone()
    method.prepare_stage()
    method.train()
    assert not torch.equal(method.net.head.weight, before)
    assert not any(branch.training for branch in method.net.branches)
    loss, output, _ = loss_of(method, batch)
    assert loss == pytest.approx(float(F.cross_entropy(output / 5, labels)))


@pytest.mark.parametrize("form", ["paper", "reference"])
def test_fosters_boosting_aligns_logits_enhances_features_and_distils(form):
    method, batch, labels = second_task("foster", alignment=form, distillation_weight=0.7)
    heads = copy.deepcopy((method.net.auxiliary_head, method.net.old_head))
    loss, output, latent = loss_of(method, batch)
    old, new = (1 - 0.96**3) / 0.04, (1 - 0.96**20) / 0.04  # 3 memories, 20 samples per class
    scales = torch.tensor([old, old, new, new, new])
    if form == "paper":
        scales /= old + new
    else:
        weights = 1 / scales
        scales = 1 / (weights / weights.sum() * 5)
    soft = F.softmax(heads[1](latent[:, :36]) / 2, dim=1)
    distilled = -(soft * F.log_softmax(output[:, :2] / 2, dim=1)).sum(dim=1).mean()
    expected = F.cross_entropy(output * scales, labels) + 0.7 * distilled
    expected += F.cross_entropy(heads[0](latent[:, 36:]), labels)
    assert loss == pytest.approx(expected.item())


@pytest.mark.parametrize("evaluated", ["compressed", "reference"])
def test_fosters_student_learns_balanced_outputs_and_replaces_both_extractors(evaluated):
    method, batch, _ = second_task("foster", evaluated=evaluated, compression_weight_decay=0.1)
    boosted = method.net
    method.prepare_stage()
    method.eval()
    assert method.opt.param_groups[0]["weight_decay"] == 0.1
    student = method.net
    for ours, theirs in zip(
        student.branches[0].parameters(), boosted.branches[0].parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(student.head.weight[:2], boosted.old_head.weight)
    loss, output, _ = loss_of(method, batch)
    soft = F.softmax(boosted(batch.images)[0] / 2, dim=1)
    soft = soft / torch.tensor([(1 - 0.97**n) / 0.03 for n in (3, 3, 20, 20, 20)])
    soft = soft / soft.sum(dim=1, keepdim=True)
    expected = -(soft * F.log_softmax(output / 2, dim=1)).sum(dim=1).mean()
    assert loss == pytest.approx(expected.item())
    method.finish_stage()
    assert method.net is (student if evaluated == "compressed" else boosted)
    assert method.old_net is (None if evaluated == "compressed" else student)


@pytest.mark.parametrize("epochs", [0, 1])
def test_foster_keeps_one_extractor_only_if_it_compresses(epochs):
    torch.manual_seed(0)
    settings = {"loss": "ce", "compression_epochs": epochs, "lr": 0.1}
    method = METHODS["foster"].model([2, 2, 1], NAMES, settings, net=Small(5))
    n_branches = []
    for task, n in enumerate((2, 4, 5)):
        method.prepare_model_for_new_task()
        n_branches.append(len(method.net.branches))
        labels = torch.arange(6) % n
        targets = F.one_hot(labels, n).float()
        method.train()
        method.observe(torch.rand(6, 3, 32, 32), targets)
        if task:  # new classes take nothing from earlier latents
            old = 2 * task
            assert not method.net.of_old_branches(method.net.head.weight)[old:].any()
            assert method.net.of_new_branch(method.net.head.weight)[old:].all()
        for _ in method.stages_of_task(task):
            method.prepare_stage()
            method.finish_stage()
        method.consolidate_task_knowledge()
    assert n_branches == ([1, 2, 2] if epochs else [1, 2, 3])
