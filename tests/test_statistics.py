"""Statistics of a method follow its network and its state; methods that regularise with them."""

import copy
import re
from contextlib import contextmanager
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_train.methods import METHODS, fisher
from iirc_train.methods.anchored import quadratic_penalty
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.fisher import fisher_information
from iirc_train.methods.statistics import Statistics, trained_parameters

TASKS = [3, 2, 2]
NAMES = {f"c{index}": index for index in range(sum(TASKS))}


class Tiny(nn.Module):
    """A convolution, batch normalisation and a linear layer."""

    def __init__(self, n_classes=7):
        super().__init__()
        self.model = nn.Module()
        self.model.conv = nn.Conv2d(3, 4, 3)
        self.model.norm = nn.BatchNorm2d(4)
        self.model.output_layer = nn.Linear(4, n_classes)

    def forward(self, images):
        latent = self.model.norm(self.model.conv(images)).tanh().mean(dim=(2, 3))
        return self.model.output_layer(latent), latent


class Samples:
    """Noise images with one label each, as the published dataset has them."""

    def __init__(self, task_id, n=10):
        generator = torch.Generator().manual_seed(task_id)
        self.images = torch.randn(n, 3, 5, 5, generator=generator)
        start = sum(TASKS[:task_id])
        self.labels = torch.arange(n) % TASKS[task_id] + start
        self.cur_task_id = task_id
        self.cur_task = [f"c{start + k}" for k in range(TASKS[task_id])]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], f"c{int(self.labels[index])}", "none"

    @contextmanager
    def disable_augmentations(self):
        yield

    def batch(self, n_seen, rows=slice(None)):
        images, targets = self.images[rows], F.one_hot(self.labels[rows], n_seen).float()
        return Batch(images, targets, torch.zeros(len(images), dtype=torch.bool), self.labels[rows])


def made(model, **settings):
    torch.manual_seed(0)
    settings = {"lr": 0.1, "epochs_per_task": 5} | settings
    return model(TASKS, NAMES, settings, net=Tiny())


# ------------------------------------------------------------------ the hook


def test_statistics_grow_with_the_network_and_stay_in_place_otherwise():
    net = Tiny(2).to(memory_format=torch.channels_last)
    statistics = Statistics(["fisher"], {"mean": ("D",), "covariance": ("D", "D"), "count": ()})
    statistics.follow(net, 2)
    tensors = statistics.of_parameters("fisher")
    for tensor, (_, parameter) in zip(tensors, trained_parameters(net), strict=True):
        assert (tensor.shape, tensor.stride()) == (parameter.shape, parameter.stride())
        assert not tensor.any() and not tensor.requires_grad
        tensor.fill_(1.0)
    shapes = [statistics.of_classes(n).shape for n in ("mean", "covariance", "count")]
    assert shapes == [(2, 4), (2, 4, 4), (2,)]
    statistics.of_classes("covariance").fill_(2.0)

    statistics.follow(net, 2)
    assert all(a is b for a, b in zip(tensors, statistics.of_parameters("fisher"), strict=True))
    net.model.output_layer = nn.Linear(6, 5)  # rows and columns, as of a network with a new branch
    net.model.conv.weight.requires_grad_(False)
    statistics.follow(net, 5)
    *others, weight, bias = statistics.of_parameters("fisher")
    assert [len(tensor) for tensor in others] == [4, 4, 4]  # conv.bias, norm
    assert all(tensor.all() for tensor in others)
    assert weight.shape == (5, 6) and weight[:2, :4].all() and weight.sum() == 8
    assert bias.tolist() == [1, 1, 0, 0, 0]
    covariance = statistics.of_classes("covariance")
    assert covariance.shape == (5, 6, 6) and covariance.sum() == 2 * 2 * 4 * 4
    assert statistics.n_bytes == 4 * sum(tensor.numel() for tensor in statistics.buffers())


class Growing(BaseMethod):
    """Has an output layer that grows, and statistics."""

    parameter_statistics = ("path",)
    class_statistics = MappingProxyType({"mean": ("D",)})

    def _with_first_head(self, net):
        net.model.output_layer = nn.Linear(4, TASKS[0])
        return net

    def _prepare_model_for_new_task(self, *args, **kwargs):
        if self.cur_task_id:
            old, layer = self.net.model.output_layer, nn.Linear(4, self.n_seen_classes)
            with torch.no_grad():
                layer.weight[: len(old.weight)] = old.weight
            self.net.model.output_layer = layer

    def _loss(self, step):
        return self._bce(step.output, step.targets, step.in_buffer)

    @torch.no_grad()
    def _after_update(self):
        for path, (_, parameter) in zip(
            self.statistics.of_parameters("path"), trained_parameters(self.net), strict=True
        ):
            path += parameter
        self.statistics.of_classes("mean").add_(0.1)


def test_a_state_contains_the_statistics_of_a_head_that_grows_and_restores_their_bits():
    method, other = made(Growing), made(Growing)
    for task_id in range(3):
        method.prepare_model_for_new_task(Samples(task_id))
        weight, mean = (
            method.statistics.of_parameters("path")[-2],
            method.statistics.of_classes("mean"),
        )
        assert len(weight) == len(mean) == method.n_seen_classes
        assert not weight[method.n_old_classes :].any() and not mean[method.n_old_classes :].any()
        assert bool(weight[: method.n_old_classes].any()) == (task_id > 0)
        method.training_step(Samples(task_id).batch(method.n_seen_classes))
    other.load_method_state_dict(copy.deepcopy(method.method_state_dict()))
    for learner in (method, other):
        learner.training_step(Samples(2).batch(7))
    state = other.state_dict()
    assert any(name.startswith("statistics.path.") for name in state)
    assert all(torch.equal(state[name], value) for name, value in method.state_dict().items())
    assert {n for n, _ in method.named_parameters()} == {
        f"net.{n}" for n, _ in method.net.named_parameters()
    }
    assert {buffer.device.type for buffer in method.to("meta").statistics.buffers()} == {"meta"}


# ------------------------------------------------------------------ penalty and Fisher information


def test_the_quadratic_penalty_and_its_gradient_agree_with_autograd():
    torch.manual_seed(0)
    shapes = [(3, 2), (4,), ()]
    parameters, anchors, importance = ([torch.randn(s) for s in shapes] for _ in range(3))
    penalty, pull = quadratic_penalty(parameters, anchors, importance)  # some are negative
    for parameter in parameters:
        parameter.requires_grad_()
    expected = sum(
        (w * (p - a) ** 2).sum() for p, a, w in zip(parameters, anchors, importance, strict=True)
    )
    expected.backward()
    torch.testing.assert_close(penalty, expected.detach())
    for half, parameter in zip(pull, parameters, strict=True):
        torch.testing.assert_close(2 * half, parameter.grad)


def log_likelihood(method, images, targets):
    logits = method.net(images)[0][:, : targets.shape[1]] / method.config.temperature
    if method.config.loss == "ce":
        return (logits.log_softmax(1) * targets).sum(1)
    return (targets * logits.sigmoid().log() + (1 - targets) * (-logits).sigmoid().log()).sum(1)


@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("labels", ["data", "data_weighted", "batches", "model"])
def test_fisher_information_is_the_mean_square_of_gradients(loss, labels, monkeypatch):
    monkeypatch.setattr(fisher, "MAX_GRADIENTS", 500)  # two samples at a time
    method, data = made(METHODS["ewc_online"].model, loss=loss, temperature=1.5), Samples(0, 7)
    method.prepare_model_for_new_task(data)
    method.train()
    method.training_step(data.batch(3))
    found = fisher_information(method, data, labels, n_classes=4, batch_size=3, seed=1)
    assert method.training
    method.train(labels == "batches")
    order = [[0, 1, 2], [3, 4, 5], [6]] if labels == "batches" else [[k] for k in range(7)]
    draws = torch.tensor(fisher.np.random.default_rng(1).random((7, 4), "float32"))
    expected = [torch.zeros_like(p) for p in method.net.parameters()]
    for rows in order:
        images, targets = data.images[rows], F.one_hot(data.labels[rows], 4).float()
        if labels == "model":
            logits = method.net(images)[0][:, :4] / 1.5
            targets = (draws[rows] < logits.sigmoid()).float()
            if loss == "ce":
                below = logits.softmax(1).cumsum(1) <= draws[rows, :1]
                targets = F.one_hot(below.sum(1), 4).float()
        log = log_likelihood(method, images, targets).mean()
        weight = log.detach().exp() if labels == "data_weighted" else 1.0
        for each, gradient in zip(
            expected, torch.autograd.grad(log, list(method.net.parameters())), strict=True
        ):
            each += weight * gradient**2 / len(order)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_labels_are_drawn_as_often_as_the_network_predicts_them():
    method = made(METHODS["ewc_online"].model, loss="ce")
    output = torch.randn(1, 3).expand(1000, 3)
    draws = ((torch.arange(1000) + 0.5) / 1000).unsqueeze(1).expand(1000, 3)
    drawn = fisher._drawn(method, output, draws)
    assert torch.equal(drawn.sum(dim=1), torch.ones(1000))
    torch.testing.assert_close(drawn.mean(dim=0), output[0].softmax(0), atol=1e-3, rtol=0)


def test_a_network_without_gradients_of_single_samples_is_named():
    method, data = made(METHODS["ewc_online"].model), Samples(0)
    method.net.model.norm = nn.BatchNorm2d(4, track_running_stats=False)  # of the batch, always
    method.net.model.norm.forward = lambda x: x * x.sum().item()
    method.prepare_model_for_new_task(data)
    with pytest.raises(ConfigurationError, match=r"single samples.*--ewc-fisher batches"):
        method.consolidate_task_knowledge()


def test_ewc_needs_the_samples_of_the_task():
    method = made(METHODS["ewc_online"].model)
    method.prepare_model_for_new_task()
    with pytest.raises(ConfigurationError, match="pass task_data"):
        method.consolidate_task_knowledge()


# ------------------------------------------------------------------ methods


def learned(name, **settings):
    """Learn three tasks; return each step's loss, and the parameters after it."""
    method, steps = made(METHODS[name].model, loss="ce", **settings), []
    for task_id in range(3):
        data = Samples(task_id)
        method.prepare_model_for_new_task(data)
        for rows in (slice(0, 4), slice(4, 10), slice(0, 10)):
            method.train()
            _, loss = method.training_step(data.batch(method.n_seen_classes, rows))
            steps.append((float(loss), [p.detach().clone() for p in method.net.parameters()]))
        method.consolidate_task_knowledge()
    return steps


def reference(importance_of_task, penalty_weight):
    """Learn the same by autograd of the whole objective."""
    torch.manual_seed(0)
    net, steps, omega, anchor = Tiny(), [], None, None
    for task_id, n_seen in enumerate((3, 5, 7)):
        data, start = Samples(task_id), [p.detach().clone() for p in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-5)
        path = [torch.zeros_like(p) for p in start]
        for rows in (slice(0, 4), slice(4, 10), slice(0, 10)):
            net.train()
            loss = F.cross_entropy(net(data.images[rows])[0][:, :n_seen], data.labels[rows])
            plain = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
            if omega is not None:
                terms = zip(omega, net.parameters(), anchor, strict=True)
                loss = loss + penalty_weight * sum((w * (p - a) ** 2).sum() for w, p, a in terms)
            before = [p.detach().clone() for p in net.parameters()]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for each, g, p, b in zip(path, plain, net.parameters(), before, strict=True):
                each -= g * (p.detach() - b)
            steps.append((loss.item(), [p.detach().clone() for p in net.parameters()]))
        anchor = [p.detach().clone() for p in net.parameters()]
        omega = importance_of_task(net, data, n_seen, omega, path, start)
    return steps


def assert_same_steps(found, expected):
    for (loss, ours), (expected_loss, theirs) in zip(found, expected, strict=True):
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_si_is_gradient_descent_on_the_surrogate_loss_of_its_paper():
    def importance(net, data, n_seen, omega, path, start):
        omega = omega or [torch.zeros_like(p) for p in path]
        moved = [p.detach() - s for p, s in zip(net.parameters(), start, strict=True)]
        return [
            (o + w / (m**2 + 0.01)).clamp(min=0) for o, w, m in zip(omega, path, moved, strict=True)
        ]

    found = learned("si", si_c=0.5, si_xi=0.01)
    assert_same_steps(found, reference(importance, 0.5))
    plain = learned("finetune")
    assert found[2][0] == pytest.approx(plain[2][0])
    assert found[-1][0] != pytest.approx(plain[-1][0], rel=1e-3)  # the penalty does something


def test_online_ewc_is_gradient_descent_on_the_penalised_loss_of_its_papers():
    def importance(net, data, n_seen, omega, path, start):
        net.eval()
        found = [torch.zeros_like(p) for p in start]
        for image, label in zip(data.images, data.labels, strict=True):
            log = net(image.unsqueeze(0))[0][0, :n_seen].log_softmax(0)[label]
            gradients = torch.autograd.grad(log, list(net.parameters()))
            for each, gradient in zip(found, gradients, strict=True):
                each += gradient**2 / len(data)
        return found if omega is None else [0.5 * o + f for o, f in zip(omega, found, strict=True)]

    found = learned("ewc_online", ewc_lambda=6.0, ewc_gamma=0.5, ewc_fisher="data")
    assert_same_steps(found, reference(importance, 3.0))


@pytest.mark.parametrize(("name", "setting"), [("si", "si_c"), ("ewc_online", "ewc_lambda")])
def test_a_diverging_penalty_names_the_weight_below_which_it_does_not(name, setting):
    def loss_after(weight, n_steps):
        method = made(METHODS[name].model, loss="ce", **{setting: weight})
        method.prepare_model_for_new_task(Samples(0))
        data = Samples(1)
        method.consolidate_task_knowledge()
        method.prepare_model_for_new_task(data)
        for each in method.statistics.of_parameters("importance"):
            each.fill_(2.0)
        for _ in range(n_steps):
            method.train()
            _, loss = method.training_step(data.batch(method.n_seen_classes, slice(0, 10)))
        return float(loss), method.remedy()

    _, remedy = loss_after(1000.0, 1)
    largest = float(re.search(rf"{setting} has to be below (\S+) in this task", remedy)[1])
    below, usual = loss_after(0.8 * largest, 300)
    above, _ = loss_after(1.2 * largest, 300)
    assert below < 10
    assert not above < 1e6
    assert "lower the learning rate" in usual


def test_the_fisher_information_is_bounded_and_of_as_many_samples_as_asked_for():
    settings = {"loss": "ce", "ewc_fisher": "data", "ewc_fisher_samples": 4}
    free, bound = (
        made(METHODS["ewc_online"].model, ewc_fisher_max=most, **settings) for most in (0.0, 1e-3)
    )
    for method in (free, bound):
        method.prepare_model_for_new_task(Samples(0))
        method.consolidate_task_knowledge()
    order = free.order_of_samples(10)
    assert sorted(order.tolist()) == list(range(10))
    expected = fisher_information(free, Samples(0), "data", n_classes=3, indices=order[:4])
    for ours, theirs, capped in zip(
        free.statistics.of_parameters("importance"),
        expected,
        bound.statistics.of_parameters("importance"),
        strict=True,
    ):
        assert torch.equal(ours, theirs) and torch.equal(capped, ours.clamp(max=1e-3))


@pytest.mark.parametrize("distillation", ["per_task", "joint"])
def test_lwf_distils_the_softmax_outputs_of_the_earlier_tasks(distillation):
    method = made(METHODS["lwf"].model, lwf_lambda=0.7, lwf_distillation=distillation)
    for task_id in range(3):
        method.prepare_model_for_new_task(Samples(task_id))
    with torch.no_grad():
        method.net.model.conv.weight += 0.3 * torch.randn(4, 3, 3, 3)
        method.net.model.output_layer.weight += torch.randn(7, 4)
    data, net = Samples(2), method.net
    logits, teacher = net(data.images)[0], method.forward_old_net(data.images)[0]
    expected = F.cross_entropy(logits[:, 5:], data.labels - 5)
    for start, stop in ((0, 3), (3, 5)) if distillation == "per_task" else ((0, 5),):
        old, now = (each[:, start:stop] / 2 for each in (teacher, logits))
        expected = expected - 0.7 * (old.softmax(1) * now.log_softmax(1)).sum(1).mean()
    _, loss = method.training_step(data.batch(7))
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)


def test_lwf_warms_up_the_outputs_of_new_classes_alone():
    net = Tiny()
    net.model.conv.bias.requires_grad_(False)  # frozen by the user
    settings = {"lr": 0.1, "lwf_warmup": 2, "epochs_per_task": 5}
    method, changed = METHODS["lwf"].model(TASKS, NAMES, settings, net=net), []
    for task_id in range(2):
        method.prepare_model_for_new_task(Samples(task_id))
        for _ in range(3):
            method.train()
            before = {n: v.clone() for n, v in method.net.state_dict().items()}
            method.training_step(Samples(task_id).batch(method.n_seen_classes))
            after = method.net.state_dict()
            changed.append({n for n, v in after.items() if not torch.equal(v, before[n])})
            if 3 <= len(changed) - 1 < 5:
                for name in ("weight", "bias"):
                    key = f"model.output_layer.{name}"
                    assert torch.equal(after[key][:3], before[key][:3])
                    assert not torch.equal(after[key][3:5], before[key][3:5])
            method.consolidate_epoch_knowledge()
    head = {"model.output_layer.weight", "model.output_layer.bias"}
    assert changed[3] == changed[4] == head
    everything = set(method.net.state_dict()) - {"model.conv.bias"}
    assert changed[0] == changed[5] == everything
    with pytest.raises(ConfigurationError, match="lwf_warmup 5 leaves no epoch"):
        made(METHODS["lwf"].model, lwf_warmup=5)
