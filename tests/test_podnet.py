"""PODNet: pooled distillation, local similarities with a margin, imprinted proxies, fine-tuning."""

import math

import pytest
import torch
import torch.nn.functional as F

from iirc_train.methods.imprinting import kmeans
from iirc_train.methods.podnet_losses import (
    nca,
    nca_of_reference,
    pod_spatial,
    pod_spatial_of_reference,
)
from iirc_train.models.cosine_linear import CosineLinear, SplitCosineLinear
from tests.test_class_incremental import N_SEEN, second_task
from tests.test_methods import ManySamples, toy_method


def unit(vector):
    return vector / vector.norm()


def test_pod_spatial_is_the_distance_of_maps_summed_over_width_and_over_height():
    torch.manual_seed(0)
    maps, teachers = ([torch.randn(3, 2, 4, 5), torch.randn(3, 6, 2, 2)] for _ in range(2))
    expected = torch.zeros(3)
    for ours, theirs in zip(maps, teachers, strict=True):
        for n in range(3):
            for axis in (1, 2):
                a, b = (unit(each[n].sum(dim=axis).flatten()) for each in (ours, theirs))
                expected[n] += (a - b).square().sum() / len(maps)
    torch.testing.assert_close(pod_spatial(maps, teachers), expected)
    assert torch.equal(pod_spatial(maps, maps), torch.zeros(3))


def test_local_similarity_is_the_mean_cosine_weighted_by_its_softmax():
    torch.manual_seed(0)
    layer, latent = CosineLinear(4, 3, n_proxies=5).requires_grad_(False), torch.randn(2, 4)
    assert layer.weight.shape == (15, 4)
    for n in range(2):
        for c in range(3):
            cosine = [float(unit(latent[n]) @ unit(layer.weight[5 * c + k])) for k in range(5)]
            total = sum(math.exp(s) for s in cosine)
            expected = sum(math.exp(s) * s for s in cosine) / total
            assert float(layer(latent)[n, c]) == pytest.approx(expected, abs=1e-6)
    one = CosineLinear(4, 3, n_proxies=1)
    assert torch.equal(one(latent), F.linear(F.normalize(latent, dim=1), F.normalize(one.weight)))


def test_nca_wants_the_label_ahead_of_all_other_classes_by_a_margin():
    scores = torch.tensor([[2.0, 1.0, 0.5], [1.0, 9.0, 0.5], [1.0, 1.0, 1.0]])
    targets = torch.eye(3)
    others = [math.log(math.exp(1.0) + math.exp(0.5)), 0, math.log(2 * math.e)]
    expected = [max(0, others[0] - 2.0 + 0.6), 0.0, others[2] - 1 + 0.6]
    torch.testing.assert_close(nca(scores, targets, torch.tensor(0.6)), torch.tensor(expected))
    reference = nca_of_reference(scores, targets)
    assert reference[1] == pytest.approx(math.log(1 + math.exp(-8) + math.exp(-8.5)), rel=1e-3)


def test_the_loss_of_a_single_class_has_a_gradient_without_nan():
    scores = torch.ones(2, 1, requires_grad=True)
    nca(scores, torch.ones(2, 1), torch.tensor(0.6)).sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_the_loss_adds_distillation_that_grows_with_the_root_of_the_classes(strength):
    settings = {"pod_spatial": 2.0, "pod_flat": 0.5, "memory_strength": strength}
    method, images, labels, in_buffer = second_task("podnet", **settings)
    assert method.factor == pytest.approx((N_SEEN / 2) ** 0.5)
    targets = F.one_hot(labels, N_SEEN).float()
    weight = torch.where(in_buffer, strength, 1.0)
    with torch.no_grad():
        output, latent = method.net(images)
        teacher = method.old_net(images)[1]
        direction = F.normalize(latent, dim=1) - F.normalize(teacher, dim=1)
        distance = direction.square().sum(dim=1)  # the only map is the latent
        each = nca(output, targets, torch.tensor(0.6)) + 2**0.5 * (2.0 + 0.5) * distance
    loss = method.observe(images, targets, in_buffer)[1]
    assert loss == pytest.approx(float((weight * each).mean()), rel=1e-5)


def test_proxies_of_new_classes_start_at_the_centres_of_their_latents():
    method = toy_method("podnet", proxies_per_class=3)
    method.prepare_model_for_new_task()
    old = method.net.model.output_layer.weight.detach().clone()
    torch.manual_seed(0)
    centres = {"c3": 3 * torch.randn(3, 5), "c4": 3 * torch.randn(3, 5)}
    x = torch.cat([(each[torch.arange(30) % 3]) for each in centres.values()])
    data = ManySamples(x + 0.001 * torch.randn_like(x), ["c3"] * 30 + ["c4"] * 30, 1)
    method.prepare_model_for_new_task(data, batch_size=16)
    layer = method.net.model.output_layer
    assert isinstance(layer, SplitCosineLinear) and torch.equal(layer.fc1.weight, old)
    assert layer.weight.shape == (5 * 3, 4)
    with torch.no_grad():
        for row, points in enumerate(centres.values()):
            latents = F.normalize(method.net(points)[1], dim=1)
            proxies = F.normalize(layer.fc2.weight[3 * row : 3 * row + 3], dim=1)
            assert (latents @ proxies.T).amax(dim=0).min() > 0.999
            assert (latents @ proxies.T).amax(dim=1).min() > 0.999  # each centre has its proxy
    norms = layer.fc2.weight.norm(dim=1)
    torch.testing.assert_close(norms, old.norm(dim=1).mean().expand(6))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_kmeans_finds_centres_of_few_points_and_repeats_them_if_there_are_fewer(n):
    torch.manual_seed(0)
    points = 10 * torch.randn(n, 3)
    found = kmeans(points, 7)
    assert found.shape == (7, 3) and torch.equal(found, kmeans(points, 7))
    distance = torch.cdist(found, points)
    assert distance.min(dim=1).values.max() < 1e-3 and distance.min(dim=0).values.max() < 1e-3


def test_kmeans_assigns_every_point_to_its_nearest_centre():
    torch.manual_seed(0)
    points = torch.randn(200, 4)
    centres = kmeans(points, 5)
    nearest = torch.cdist(points, centres).argmin(dim=1)
    means = torch.stack([points[nearest == k].mean(dim=0) for k in range(5)])
    torch.testing.assert_close(centres, means, atol=0.05, rtol=0)


@pytest.mark.parametrize("form", ["paper", "reference"])
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_proxies_of_earlier_classes_keep_their_values_at_a_factor_of_zero(form, factor):
    settings = {"old_proxies_lr_factor": factor, "podnet_form": form, "weight_decay": 0.1}
    method, images, labels, in_buffer = second_task("podnet", **settings)
    targets = F.one_hot(labels, N_SEEN).float()
    layer = method.net.model.output_layer
    values = [layer.fc1.weight.detach().clone(), layer.fc2.weight.detach().clone()]
    method.observe(images, targets, in_buffer)
    assert torch.equal(layer.fc1.weight, values[0]) == (factor == 0)
    assert not torch.equal(layer.fc2.weight, values[1])
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    method.prepare_stage()
    method.observe(images, targets, in_buffer)
    method.finish_stage()
    changed = {n for n, v in method.net.state_dict().items() if not torch.equal(v, before[n])}
    head = {n for n in before if "output_layer" in n}
    kept = {"model.output_layer.fc1.weight"} if (form, factor) == ("reference", 0.0) else set()
    assert changed == (head if form == "paper" else set(before)) - kept
    assert method.get_last_lr() == [0.05] and all(p.requires_grad for p in method.net.parameters())


def test_the_stage_is_left_out_of_the_first_task_and_where_it_has_no_epochs():
    method = toy_method("podnet")
    assert [len(method.stages_of_task(task)) for task in range(3)] == [0, 1, 1]
    (stage,) = method.stages_of_task(1)
    assert (stage.epochs, stage.data, stage.after_memories) == (20, "balanced", True)
    assert not toy_method("podnet", finetuning_epochs=0).stages_of_task(1)


@pytest.mark.parametrize(("form", "is_cosine"), [("paper", False), ("reference", True)])
def test_the_learning_rate_of_the_fine_tuning_is_constant_in_the_form_of_the_paper(form, is_cosine):
    method = toy_method("podnet", podnet_form=form, lr_cosine=True)
    (stage,) = method.stages_of_task(1)
    assert stage.applied_to(method.config).lr_cosine is is_cosine


def test_the_reference_form_squares_maps_after_the_relu_and_does_not_square_distances():
    torch.manual_seed(0)
    maps, teachers = ([torch.randn(3, 2, 4, 5), torch.randn(3, 6, 2, 2)] for _ in range(2))
    expected = torch.zeros(3)
    for ours, theirs in zip(maps, teachers, strict=True):
        for n in range(3):
            a, b = (
                unit(
                    torch.cat([each[n].relu().square().sum(dim=axis).flatten() for axis in (2, 1)])
                )
                for each in (ours, theirs)
            )
            expected[n] += (a - b).norm() / len(maps)
    torch.testing.assert_close(pod_spatial_of_reference(maps, teachers), expected)


def test_the_margin_does_not_train_the_scale_which_it_would_pull_below_zero():
    method, images, labels, in_buffer = second_task("podnet", pod_spatial=0.0, pod_flat=0.0)
    targets = F.one_hot(labels, N_SEEN).float()
    sigma = method.net.model.output_layer.sigma
    cosine = method.net(images)[0].detach()  # the scale is 1
    scale = torch.ones(1, requires_grad=True)
    nca(scale * cosine, targets, torch.tensor(0.6)).mean().backward()
    method.observe(images, targets, in_buffer)
    torch.testing.assert_close(sigma.grad, scale.grad)
