"""Methods on a frozen network: their statistics, against independent computations."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_train.methods import METHODS
from iirc_train.methods.definite import definite_factor, ridge_weights
from iirc_train.methods.fecam import shrunk
from iirc_train.methods.frozen import FrozenMethod
from iirc_train.methods.label_odds import Moments, label_odds
from iirc_train.methods.statistics import Statistics
from iirc_train.runtime.distributed import share_of
from iirc_train.training.components import Experiment
from tests.ce_methods import config_for
from tests.ranks import run_ranks
from tests.small_network import Small

TASKS, D = [3, 2], 36
NAMES = {f"c{number}": number for number in range(sum(TASKS))}
FROZEN = [name for name, parts in METHODS.items() if issubclass(parts.model, FrozenMethod)]
BY_STATISTICS = [name for name in FROZEN if METHODS[name].model.learns_by_statistics]
WITH_LABELS = [name for name in BY_STATISTICS if "bce" in METHODS[name].model.losses]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The network is so small that threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images_of(task, n=40, seed=0):
    """Return images of a task, (N, 3, 32, 32), and their classes; a class has a pattern."""
    generator = torch.Generator().manual_seed(10 * seed + task)
    patterns = torch.randn(sum(TASKS), 3, 8, 8, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % TASKS[task] + sum(TASKS[:task])
    images = patterns[labels].repeat_interleave(4, 2).repeat_interleave(4, 3)
    return images + torch.randn(n, 3, 32, 32, generator=generator), labels


def batch_of(images, labels, n_seen):
    targets = F.one_hot(labels, sum(TASKS))[:, :n_seen].float()
    return Batch(images, targets, torch.zeros(len(images), dtype=torch.bool), labels)


def made(name, net=None, **settings):
    torch.manual_seed(0)
    size = {"ranpac_features": 64} if name == "ranpac" else {}
    settings = {"loss": METHODS[name].model.losses[-1], "lr": 0.1, **size, **settings}
    return METHODS[name].model(TASKS, NAMES, settings, net=net or Small(sum(TASKS)))


def learn(method, sizes=(16, 16, 8), n_tasks=2):
    """Learn tasks in batches of the given sizes, of which a process has a part."""
    for task in range(n_tasks):
        method.prepare_model_for_new_task()
        method.train()
        images, labels = images_of(task)
        for rows in torch.arange(len(images)).split(list(sizes)):
            mine = rows[share_of(len(rows))]
            method.training_step(batch_of(images[mine], labels[mine], method.n_seen_classes))
        method.consolidate_epoch_knowledge()
        method.consolidate_task_knowledge()
    return method.eval()


def unseen_images():
    images = [images_of(task, seed=1) for task in range(len(TASKS))]
    return torch.cat([x for x, _ in images]), torch.cat([y for _, y in images])


@pytest.fixture(scope="module")
def learned():
    """Return each method after both tasks, as class-incremental learning has it."""
    return {name: learn(made(name)) for name in FROZEN}


def latents_and_labels(method):
    images, labels = zip(*(images_of(task) for task in range(len(TASKS))), strict=True)
    with torch.no_grad():
        return method.net(torch.cat(images))[1].double().numpy(), torch.cat(labels).numpy()


# ------------------------------------------------------------------ the network


@pytest.mark.parametrize("name", FROZEN)
def test_only_the_output_layer_of_the_probe_changes(name, learned):
    method = learned[name]
    torch.manual_seed(0)
    before = Small(sum(TASKS)).state_dict()
    changed = {n for n, value in method.net.state_dict().items() if not value.equal(before[n])}
    head = {"model.output_layer.weight", "model.output_layer.bias"}
    assert changed == (head if name == "linear_probe" else set())
    method.train()
    in_training = {n for n, module in method.net.named_modules() if module.training}
    assert in_training <= {"model.output_layer"}
    assert {n for n, p in method.net.named_parameters() if p.requires_grad} == head
    method.eval()


@pytest.mark.parametrize("name", FROZEN)
def test_classes_of_both_tasks_are_told_apart(name, learned):
    images, labels = unseen_images()
    hits = learned[name].scores(images).argmax(dim=1) == labels
    later = labels >= TASKS[0]
    assert hits[later].float().mean() > 0.75
    if name != "linear_probe":  # which forgets
        assert hits[~later].float().mean() > 0.75


def test_a_network_that_is_not_frozen_is_refused():
    with pytest.raises(ConfigurationError, match="frozen network: leave out frozen, got false"):
        made("simplecil", frozen=False)


# ------------------------------------------------------------------ statistics


@pytest.mark.parametrize(
    ("name", "loss"), [(n, loss) for n in BY_STATISTICS for loss in METHODS[n].model.losses]
)
def test_statistics_do_not_depend_on_batches(name, loss, learned):
    images, _ = unseen_images()
    expected = learned[name] if loss == "ce" else learn(made(name, loss=loss))
    one_by_one = learn(made(name, loss=loss), sizes=[1] * 40)
    torch.testing.assert_close(
        one_by_one.scores(images), expected.scores(images), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", BY_STATISTICS)
def test_a_second_epoch_changes_nothing_and_looking_at_scores_neither(name, learned):
    method, (images, _) = made(name), unseen_images()
    method.prepare_model_for_new_task()
    method.scores(images)
    batches = [batch_of(*(part[i : i + 20] for part in images_of(0)), 3) for i in (0, 20)]
    for _ in range(3):
        for batch in batches:
            method.training_step(batch)
            method.scores(images)
        method.consolidate_epoch_knowledge()
    expected = learn(made(name), sizes=(20, 20), n_tasks=1)
    state, theirs = method.statistics.state_dict(), expected.statistics.state_dict()
    for key, value in state.items():
        torch.testing.assert_close(value, theirs[key], msg=key)


@pytest.mark.parametrize("name", BY_STATISTICS)
def test_a_state_from_amid_a_task_goes_on_with_the_same_bits(name):
    method, other = learn(made(name), n_tasks=1), made(name)
    method.prepare_model_for_new_task()
    images, labels = images_of(1)
    method.training_step(batch_of(images[:20], labels[:20], 5))
    other.load_method_state_dict(copy.deepcopy(method.method_state_dict()))
    for each in (method, other):
        each.training_step(batch_of(images[20:], labels[20:], 5))
        each.consolidate_epoch_knowledge()
        each.consolidate_task_knowledge()
    state = method.method_state_dict()
    assert all(value.equal(state["modules"][n]) for n, value in other.state_dict().items())
    assert other.method_state_dict()["variables"] == state["variables"]
    assert torch.equal(method.eval().scores(images), other.eval().scores(images))


def as_rank(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    images, _ = unseen_images()
    for name in BY_STATISTICS:
        scores = learn(made(name), (20, 20), n_tasks=1).scores(images)
        torch.save(scores, folder / f"{name}-{dist.get_rank()}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_statistics_of_one(tmp_path):
    assert run_ranks(2, as_rank, tmp_path) == [0, 0]
    images, _ = unseen_images()
    for name in BY_STATISTICS:
        expected = learn(made(name), (20, 20), n_tasks=1).scores(images)
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2))
        assert first.equal(second)
        torch.testing.assert_close(first, expected, atol=1e-4, rtol=1e-4)


def test_statistics_of_latents_and_samples_grow_with_their_axes():
    net = nn.Module()
    net.model = nn.Module()
    net.model.output_layer = nn.Linear(2, 3)
    statistics = Statistics((), {"sums": (4,)}, {"gram": ("D", 5)}, ["rows"], torch.float64)
    statistics.follow(net, 1)
    assert statistics.of_latents("gram").shape == (2, 5) and statistics.of_samples("rows") is None
    statistics.of_latents("gram").fill_(1)
    statistics.append("rows", torch.ones(2, 3))
    statistics.append("rows", torch.zeros(1, 3))
    net.model.output_layer = nn.Linear(3, 3)
    statistics.follow(net, 2)
    assert statistics.of_latents("gram").sum() == 10
    assert statistics.of_classes("sums").dtype == torch.float64
    assert statistics.of_samples("rows").sum() == 6
    assert statistics.n_bytes == 8 * (2 * 4 + 3 * 5) + 4 * 9


# ------------------------------------------------------------------ rules


def test_knn_is_the_vote_of_the_most_similar_samples(learned):
    method, (images, _) = learned["knn"], unseen_images()
    latents, labels = latents_and_labels(method)
    units = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    with torch.no_grad():
        tests = method.net(images)[1].double().numpy()
    for test, scores in zip(tests, method.scores(images).numpy(), strict=True):
        cosines = units @ (test / np.linalg.norm(test))
        nearest = np.argsort(-cosines)[:20]
        votes = np.exp(cosines[nearest] / 0.07)
        expected = np.bincount(labels[nearest], votes, sum(TASKS)) / votes.sum()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("m", [8, 60])
def test_the_ridge_is_that_of_the_smallest_error_on_the_last_samples(m, monkeypatch):
    monkeypatch.setattr("iirc_train.methods.ranpac.AT_ONCE", 7)
    method = made("ranpac", ranpac_features=m)
    method.prepare_model_for_new_task()
    random = np.random.default_rng(m)
    latents = random.standard_normal((30, D))
    projected = np.maximum(latents @ method.statistics.of_latents("projection").numpy(), 0)
    targets = projected[:, :3] + 4 * random.standard_normal((30, 3))
    errors, weights = [], []
    for power in range(-8, 9):
        x, y = projected[:24], targets[:24]
        weights.append(np.linalg.solve(x.T @ x + 10.0**power * np.eye(m), x.T @ y))
        errors.append(np.square(projected[24:] @ weights[-1] - targets[24:]).mean())
    x, y = torch.from_numpy(latents), torch.from_numpy(targets)
    found = method._best_ridge(x, y)
    assert float(found) == pytest.approx(10.0 ** (np.argmin(errors) - 8))
    assert 1e-8 < found < 1e8
    gram, sums = (
        torch.from_numpy(projected[:24].T @ projected[:24]),
        y[:24].T @ method._features(x[:24]),
    )
    np.testing.assert_allclose(
        ridge_weights(gram, sums, found).T, weights[np.argmin(errors)], atol=1e-8
    )


class Signed(Small):
    """Has latents with both signs, as a vision transformer."""

    def forward(self, images):
        latent = self.features(images) - 0.5
        return self.model.output_layer(latent), latent


class Odd(Small):
    """Has latents that are 0, equal, huge, or sum to 0 as after a layer normalisation."""

    kind = ""

    def forward(self, images):
        latent = self.features(images)
        if self.kind == "centred":
            latent = F.layer_norm(latent, latent.shape[1:])
        latent = latent * {"zero": 0.0, "huge": 1e8, "equal": 1.0, "centred": 1.0}[self.kind]
        if self.kind == "equal":
            latent = latent[:, :1].expand_as(latent)
        return self.model.output_layer(latent), latent


@pytest.mark.parametrize("kind", ["centred", "huge", "equal", "zero"])
@pytest.mark.parametrize("name", BY_STATISTICS)
def test_no_class_without_samples_and_no_noise_is_predicted(name, kind):
    """Of the second task, one class has a single sample, the other none."""
    net = Odd(sum(TASKS))
    net.kind = kind
    method = learn(made(name, net), n_tasks=1)
    images, labels = images_of(1)
    method.prepare_model_for_new_task()
    method.training_step(batch_of(images[:1], labels[:1], 5))
    method.consolidate_epoch_knowledge()
    method.consolidate_task_knowledge()
    images, labels = images_of(0, seed=1)
    scores = method.eval().scores(images)
    assert scores.isfinite().all()
    found = scores.argmax(dim=1)
    assert not (found == 4).any()
    if kind in ("centred", "huge"):
        assert (found == labels).float().mean() > 0.7


def test_factors_are_of_the_matrix_unless_rounding_errors_make_it_singular():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((9, 4)))
    regular = x.T @ x
    assert definite_factor(regular).equal(torch.linalg.cholesky(regular))
    for singular in (torch.ones(4, 4).double(), torch.zeros(4, 4).double(), x @ x.T):
        factor = definite_factor(singular)
        assert torch.allclose(factor @ factor.T, singular, atol=1e-4)
    assert not definite_factor(x @ x.T).diagonal().eq(0).any()


def test_tukeys_transform_is_left_out_where_latents_are_negative(learned):
    torch.manual_seed(0)
    (images, labels), net = unseen_images(), Signed(sum(TASKS))
    found, expected = (
        learn(made("fecam", copy.deepcopy(net), fecam_tukey=power)).scores(images)
        for power in (0.5, 1.0)
    )
    assert found.equal(expected) and found.isfinite().all()
    assert (found.argmax(dim=1) == labels).float().mean() > 0.75
    plain = learn(made("fecam", fecam_tukey=1.0)).scores(images)
    assert not torch.allclose(learned["fecam"].scores(images), plain)


@pytest.mark.parametrize("sign", [1, -1])
def test_shrunk_covariances_are_definite_however_few_samples_and_features_they_are_of(sign):
    few = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 12)))
    few[:, 6:] = 0
    few[:, 3:6] = sign * few[:, :3]
    covariance = shrunk(torch.cov(few.T), 1.0, 1.0)
    assert torch.linalg.eigvalsh(covariance).min() > 0
    with pytest.raises(ConfigurationError, match="fecam_off_diagonal 2 above fecam_diagonal 1"):
        made("fecam", fecam_off_diagonal=2)


def test_the_log_odds_of_a_label_are_those_of_two_normal_distributions():
    random = np.random.default_rng(0)
    features = random.standard_normal((200, 4))
    shown = np.stack([random.random(200) < 0.2 + 0.3 * (features[:, 0] > 0), features[:, 1] > 1], 1)
    weight = random.standard_normal((2, 4))
    weight[0, 0] = weight[1, 1] = 3.0
    n = torch.tensor(200.0, dtype=torch.float64)
    x, y, w = (torch.from_numpy(a.astype(float)) for a in (features, shown, weight))
    odds = label_odds(w, Moments(y.T @ x, y.sum(0), x.sum(0), n, x.T @ x))
    for label in range(2):
        scores, has = features @ weight[label], shown[:, label]
        means = scores[has].mean(), scores[~has].mean()
        variance = np.square(scores - np.where(has, *means)).mean()
        density = [-np.square(scores - mean) / (2 * variance) for mean in means]
        prior = np.log((has.sum() + 0.5) / ((~has).sum() + 0.5))
        expected = density[0] - density[1] + prior
        np.testing.assert_allclose(odds(x)[:, label].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_a_superclass_and_a_subclass_are_predicted_together(name):
    """Class 0 is the superclass of 3 and 4, whose samples show both labels in the second task."""
    method = made(name, loss="bce")
    assert method.config.decision == "threshold"
    for task in range(2):
        method.prepare_model_for_new_task()
        images, labels = images_of(task, 60)
        batch = batch_of(images, labels, method.n_seen_classes)
        if task:
            batch.targets[:, 0] = 1
        method.training_step(batch)
        method.consolidate_epoch_knowledge()
    images, labels = images_of(1, seed=1)
    predictions = method.eval()(images)
    expected = F.one_hot(labels, 5).bool()
    expected[:, 0] = True
    assert (predictions == expected).float().mean() > 0.85
    assert predictions[:, 0].float().mean() > 0.6


# ------------------------------------------------------------------ runs


def test_what_a_rule_cannot_serve_is_refused(tiny_settings):
    joint = {"incremental_joint": True, "n_memories_per_class": 0}
    with pytest.raises(ConfigurationError, match=r"simplecil counts each sample .* use --joint"):
        Experiment(config_for("simplecil", tiny_settings, **joint))
    iirc = config_for("fecam", tiny_settings, benchmark=tiny_settings["benchmark"])
    with pytest.raises(ConfigurationError, match="fecam has no other loss, so choose another"):
        Experiment(iirc)
