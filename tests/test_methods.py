"""Methods, herding and metrics, compared with reference values of the published definitions."""

import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from iirc_data.definitions import NO_LABEL_PLACEHOLDER
from iirc_data.errors import ConfigurationError
from iirc_train.buffer.merged import memory_batches
from iirc_train.buffer.selection import herding
from iirc_train.config import BufferConfig, ExperimentConfig, MethodConfig
from iirc_train.methods import METHODS, get_method, podnet_losses
from iirc_train.methods.agem import project
from iirc_train.methods.frozen import FrozenMethod
from iirc_train.metrics import METRICS
from iirc_train.models import MLP, CosineLinear, ResNet, ResNetCIFAR, SplitCosineLinear
from iirc_train.utils import (
    SubsetSampler,
    contrastive_distance_loss,
    get_gradient,
    get_optimizer,
    l_distance,
    labels_index_to_one_hot,
    transform_labels_names_to_vector,
    triplet_margin_loss,
    update_gradient,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "methods_golden.json").read_text())
MOMENTS = json.loads((Path(__file__).parent / "golden" / "initial_moments.json").read_text())


class ToyNetwork(nn.Module):
    """The network of the reference values."""

    stages = ("model.hidden",)

    def __init__(self, parameters=None):
        super().__init__()
        self.model = nn.Module()
        self.model.hidden = nn.Linear(5, 4)
        self.model.output_layer = nn.Linear(4, 7)
        if parameters is not None:
            if "model.output_layer.sigma" in parameters:
                self.model.output_layer = CosineLinear(4, 3)
            self.load_state_dict({k: torch.tensor(v) for k, v in parameters.items()})

    def forward(self, x):
        latent = torch.tanh(self.model.hidden(x))
        return self.model.output_layer(latent), latent


def toy_method(name, parameters=None, **settings):
    config = {**GOLDEN["config"], **settings}
    net = ToyNetwork(parameters)
    return get_method(name).model(
        GOLDEN["n_cla_per_tsk"], GOLDEN["class_names_to_idx"], config, net=net
    )


class ToySamples(Dataset):
    """Labelled vectors, with the attributes of the published dataset and buffer."""

    def __init__(self, x, labels, cur_task_id=0):
        self.x, self.labels = torch.as_tensor(x), list(labels)
        self.cur_task_id, self.cur_task = cur_task_id, GOLDEN["tasks"][cur_task_id]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.x[index], self.labels[index], NO_LABEL_PLACEHOLDER

    def get_image_indices_by_cla(self, cla, num_samples=-1, shuffle=True):
        return np.flatnonzero(np.array(self.labels) == cla)

    get_image_indices_by_class = get_image_indices_by_cla

    @property
    def n_memories_per_class(self):
        return Counter(self.labels)

    @contextmanager
    def disable_augmentations(self):
        yield


def toy_task(cur_task_id):
    """Return a task's samples and the memories of earlier tasks."""
    labels = GOLDEN["tasks"][cur_task_id] * 4
    earlier = [name for task in GOLDEN["tasks"][:cur_task_id] for name in task] * 2
    task = ToySamples(torch.randn(len(labels), 5), labels, cur_task_id)
    return task, ToySamples(torch.randn(len(earlier), 5), earlier)


def toy_batch(n_seen, n=6):
    y = labels_index_to_one_hot(torch.randint(n_seen, (n,)), n_seen)
    return torch.randn(n, 5), y, torch.arange(n) % 2 == 0


PUBLISHED = list(GOLDEN["methods"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_method_gives_the_published_numbers(name):
    reference = GOLDEN["methods"][name]
    method = toy_method(name, reference["initial_parameters"])
    for number, task in enumerate(reference["tasks"]):
        data = ToySamples(task["task_x"], task["task_labels"], number)
        buffer = ToySamples(task["buffer_x"], task["buffer_labels"])
        method.prepare_model_for_new_task(data, buffer=buffer, batch_size=64)
        if name == "icarl_norm" and number:
            new = task["parameters_after_prepare"]["model.output_layer.fc2.weight"]
            method.net.model.output_layer.fc2.weight.data = torch.tensor(new)  # random otherwise
        if "lambda_cur" in task:
            assert method.lambda_cur == pytest.approx(task["lambda_cur"])
        assert_parameters(method, task["parameters_after_prepare"])
        for step in task["steps"]:
            x, y = torch.tensor(step["x"]), torch.tensor(step["y"], dtype=torch.float32)
            in_buffer = torch.tensor(step["in_buffer"], dtype=torch.bool)
            _, valid_loss = method.observe(x, y, in_buffer, train=False)
            predictions, train_loss = method.observe(x, y, in_buffer, train=True)
            assert valid_loss == pytest.approx(step["valid_loss"], abs=1e-5)
            assert train_loss == pytest.approx(step["train_loss"], abs=1e-5)
            assert predictions.dtype == torch.bool
            assert torch.equal(predictions, torch.tensor(step["predictions"]).bool())
        assert_parameters(method, task["parameters_after_training"])
        found = method(torch.tensor(task["eval_x"]))
        assert torch.equal(found, torch.tensor(task["eval_predictions"]).bool())


def assert_parameters(method, expected):
    found = method.net.state_dict()
    assert set(found) == set(expected)
    for key, values in expected.items():
        torch.testing.assert_close(found[key], torch.tensor(values), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(METHODS))
class TestMethodContract:
    """The contract of every method."""

    def test_prepare_starts_a_task(self, name):
        method = toy_method(name)
        assert method.seen_classes == []
        optimizers = []
        for n_seen in (3, 5, 7):
            method.prepare_model_for_new_task()
            assert method.seen_classes == list(GOLDEN["class_names_to_idx"])[:n_seen]
            assert method(torch.zeros(2, 5)).shape == (2, n_seen)
            assert method.scheduler.base_lrs == [GOLDEN["config"]["lr"]]
            assert len(method.get_last_lr()) == 1
            optimized = {id(p) for group in method.opt.param_groups for p in group["params"]}
            is_frozen = isinstance(method, FrozenMethod)
            trained = (p for p in method.net.parameters() if p.requires_grad or not is_frozen)
            assert optimized == {id(p) for p in trained}
            optimizers.append(method.opt)
        assert len({id(optimizer) for optimizer in optimizers}) == 3

    def test_takes_the_published_arguments_of_every_stage(self, name):
        method = toy_method(name)
        data, buffer = toy_task(0)
        method.prepare_model_for_new_task(
            task_data=data, dist_args=None, buffer=buffer, num_workers=2
        )
        method.observe(*toy_batch(3))
        method.consolidate_epoch_knowledge(0.5, task_data=data, device="cpu", batch_size=4)
        method.consolidate_task_knowledge(buffer=data, device="cpu", batch_size=4)
        assert method(torch.randn(4, 5)).shape == (4, 3)

    def test_learns_three_tasks_of_a_plain_dataset_with_indicator_predictions(self, name):
        torch.manual_seed(0)
        method = toy_method(name)
        for number, n_seen in enumerate((3, 5, 7)):
            data, buffer = toy_task(number)
            method.prepare_model_for_new_task(data, buffer=buffer, batch_size=4)
            x, y, in_buffer = toy_batch(n_seen)
            if number == 0 or not method.replay_in_batches:
                in_buffer = torch.zeros_like(in_buffer)
            losses = []
            for _ in range(12):
                predictions, loss = method.observe(x, y, in_buffer)
                assert (predictions.dtype, predictions.shape) == (torch.bool, y.shape)
                losses.append(loss)
            assert np.isfinite(losses).all()
            if number == 0 and not method.learns_by_statistics:  # later, distillation starts at 0
                assert losses[-1] < losses[0]
            method.consolidate_epoch_knowledge(0.5)
            memories = ToySamples(
                torch.cat([buffer.x, data.x]), buffer.labels + data.labels, number
            )
            method.consolidate_task_knowledge(buffer=memories, device="cpu", batch_size=4)
            found = method(torch.randn(4, 5))
            assert (found.dtype, found.shape) == (torch.bool, (4, n_seen))

    def test_validation_changes_nothing(self, name):
        method = toy_method(name)
        for number in range(2):
            data, buffer = toy_task(number)
            method.prepare_model_for_new_task(data, buffer=buffer)
        before = {key: value.clone() for key, value in method.state_dict().items()}
        method.observe(*toy_batch(5), train=False)
        assert all(torch.equal(before[key], v) for key, v in method.state_dict().items())

    def test_memory_strength_weighs_the_loss_of_replayed_samples(self, name):
        parameters = GOLDEN["methods"].get(name, GOLDEN["methods"]["icarl_cnn"])
        method = toy_method(name, parameters["initial_parameters"], memory_strength=3.0)
        method.prepare_model_for_new_task()
        x, y, in_buffer = toy_batch(3)
        if "bce" in method.losses:
            y = (torch.rand(6, 3) > 0.5).float()
        _, loss = method.observe(x, y, in_buffer, train=False)
        if method.learns_by_statistics:
            assert loss == 0
            return
        temperature = 1.0 if name == "lucir" else GOLDEN["config"]["temperature"]
        logits = method.net(x)[0][:, :3] / temperature
        if name == "podnet":
            sigma = method.net.model.output_layer.sigma
            each = podnet_losses.nca(logits * temperature, y, 0.6 * sigma)
        elif "bce" in method.losses:
            p = logits.sigmoid()
            each = -(y * p.log() + (1 - y) * (1 - p).log()).mean(dim=1)
        else:
            each = -(y * logits.log_softmax(dim=1)).sum(dim=1)
        weight = torch.tensor([3.0, 1, 3, 1, 3, 1])
        assert loss == pytest.approx(((each * weight).sum() / 6).item(), abs=1e-5)


def prepared_for_second_task(name, **settings):
    parameters = GOLDEN["methods"][name]["initial_parameters"]
    method = toy_method(name, parameters, **settings)
    for number in range(2):
        data, buffer = toy_task(number)
        method.prepare_model_for_new_task(data, buffer=buffer)
    return method


def test_icarl_predicts_the_class_of_the_nearest_mean():
    torch.manual_seed(0)
    method = toy_method("icarl")
    method.prepare_model_for_new_task()
    memories = ToySamples(torch.randn(12, 5), ["c0", "c1", "c2", "c1"] * 3)
    x = torch.randn(20, 5)
    assert torch.equal(method(x), method.net(x)[0][:, :3] > 0)  # no means yet
    method.consolidate_task_knowledge(buffer=memories, device="cpu", batch_size=5)
    unit = [latent / latent.norm() for latent in method.net(memories.x)[1]]
    for row in range(20):
        latent = method.net(x[row : row + 1])[1][0]
        distances = []
        for name in ("c0", "c1", "c2"):
            mean = sum(u for u, label in zip(unit, memories.labels, strict=True) if label == name)
            distances.append((latent / latent.norm() - mean / mean.norm()).norm().item())
        expected = [distance == min(distances) for distance in distances]
        assert method(x[row : row + 1])[0].tolist() == expected


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_a_state_is_restored_on_the_methods_device():
    class Keeping(get_method("icarl").model):
        method_variables = ("anchors",)
        anchors = None

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.inner = nn.Module()
            self.inner.register_buffer("drift", None)
            self.inner.register_buffer("scratch", torch.ones(2), persistent=False)

    def make():
        arguments = (GOLDEN["n_cla_per_tsk"], GOLDEN["class_names_to_idx"], GOLDEN["config"])
        return Keeping(*arguments, net=ToyNetwork())

    method = make()
    method.prepare_model_for_new_task()
    method.observe(*toy_batch(3))  # gives the optimizer a state
    method.consolidate_task_knowledge(buffer=toy_task(1)[1], batch_size=4)
    method.inner.drift = torch.ones(3)
    method.anchors = {"c0": [torch.ones(2), 5], "c1": None}
    state = method.method_state_dict()
    elsewhere, here = make().to("meta"), make()  # a device that every machine has
    for other in (elsewhere, here):
        other.load_method_state_dict(state)
    for other, device in ((elsewhere, "meta"), (here, "cpu")):
        tensors = [*other.state_dict().values(), other.anchors["c0"][0], other.inner.scratch]
        for of_parameter in other.opt.state.values():
            tensors += [v for v in of_parameter.values() if isinstance(v, torch.Tensor)]
        assert other.class_means is not None and other.inner.drift is not None
        assert {tensor.device.type for tensor in tensors} == {device}
    assert torch.equal(here.class_means, method.class_means)
    x = torch.randn(9, 5)
    assert torch.equal(here(x), method(x))
    assert here.anchors["c0"][1] == 5 and here.inner.scratch.sum() == 2


def test_icarl_never_predicts_a_class_without_memories():
    method = toy_method("icarl")
    method.prepare_model_for_new_task()
    memories = ToySamples(torch.randn(4, 5), ["c0", "c2"] * 2)
    method.consolidate_task_knowledge(buffer=memories, device="cpu", batch_size=5)
    predictions = method(torch.randn(50, 5))
    assert (predictions.sum(dim=1) == 1).all() and not predictions[:, 1].any()


def test_icarl_needs_memories():
    for nothing in ({"n_memories_per_class": 0}, {"n_memories_per_class": -1, "total_n_mems": 0}):
        with pytest.raises(ConfigurationError, match="n_memories_per_class"):
            get_method("icarl").buffer(nothing)
    method = toy_method("icarl")
    method.prepare_model_for_new_task()
    with pytest.raises(ConfigurationError, match="memories"):
        method.consolidate_task_knowledge(buffer=ToySamples(torch.empty(0, 5), []))


@pytest.mark.parametrize("name", ["icarl_norm", "lucir"])
def test_the_cosine_layer_grows_and_keeps_its_old_classes(name):
    method = toy_method(name)  # a linear layer becomes a cosine layer
    x = torch.randn(6, 5)
    for number, n_seen in enumerate((3, 5, 7)):
        before = method.net(x)[0] / method.net.model.output_layer.sigma
        data, buffer = toy_task(number)
        method.prepare_model_for_new_task(data, buffer=buffer)
        after = method.net(x)[0] / method.net.model.output_layer.sigma
        assert after.shape == (6, n_seen)
        torch.testing.assert_close(after[:, : before.shape[1]], before)


class ManySamples(ToySamples):
    """More samples of a class than LUCIR imprints."""

    def get_image_indices_by_cla(self, cla, num_samples=-1, shuffle=True):
        indices = super().get_image_indices_by_cla(cla)
        indices = np.random.default_rng(0).permutation(indices) if shuffle else indices
        return indices if num_samples == -1 else indices[:num_samples]


@pytest.mark.parametrize("name", ["lucir", "icarl"])
def test_class_means_and_imprinted_weights_are_computed_in_float32(name):
    method, exact = (toy_method(name, n_layers=8) for _ in range(2))
    exact.load_state_dict(method.state_dict())
    method.autocast_dtype = torch.bfloat16
    kept = []
    for learner in (method, exact):
        torch.manual_seed(0)
        for number in range(2):
            data, buffer = toy_task(number)
            learner.prepare_model_for_new_task(data, batch_size=4)
        learner.consolidate_task_knowledge(buffer=buffer, batch_size=4)
        assert learner.autocast_dtype is (torch.bfloat16 if learner is method else None)
        kept.append(
            learner.class_means if name == "icarl" else learner.net.model.output_layer.fc2.weight
        )
    assert torch.equal(*kept)


def test_lucir_imprints_the_first_thousand_samples_of_a_class_and_no_earlier_class():
    method = toy_method("lucir", GOLDEN["methods"]["lucir"]["initial_parameters"])
    method.prepare_model_for_new_task()
    labels = ["c3"] * 1200 + ["c4"] * 30 + ["c1"] * 40
    data = ManySamples(torch.randn(len(labels), 5), labels, 1)
    data.cur_task = ["c3", "c4", "c1"]  # c1 is introduced again
    old = method.net.model.output_layer.weight.detach().clone()
    method.prepare_model_for_new_task(data, batch_size=128)
    layer = method.net.model.output_layer
    with torch.no_grad():
        latents = nn.functional.normalize(method.net(data.x)[1], dim=1)
    for row, samples in enumerate((latents[:1000], latents[1200:1230])):
        mean = nn.functional.normalize(samples.mean(dim=0), dim=0) * old.norm(dim=1).mean()
        torch.testing.assert_close(layer.fc2.weight[row], mean)
    assert torch.equal(layer.fc1.weight, old)


def test_lucir_loss_with_several_labels_and_a_memory_strength():
    torch.manual_seed(0)
    method = prepared_for_second_task("lucir", memory_strength=3.0)
    method.observe(*toy_batch(5))  # away from the teacher
    x = torch.randn(4, 5)
    # a task sample with both labels, and memories: of two old classes, old and new, old only
    y = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]]).float()
    in_buffer = torch.tensor([False, True, True, True])
    output, latent = method.net(x)
    old_latent = method.old_net(x)[1]
    cosine = output / method.net.model.output_layer.sigma
    pairs = []
    for row in (1, 2, 3):
        rivals = sorted((cosine[row, k].item() for k in (3, 4) if not y[row, k]), reverse=True)
        for label in (0, 1, 2):
            if y[row, label]:
                own = cosine[row, label].item()
                margins = zip([0.5, 0.4], rivals, strict=False)
                pairs += [max(0.0, margin - own + rival) for margin, rival in margins]
    assert len(pairs) == 2 * 2 + 1 + 2
    weight = torch.tensor([1.0, 3, 3, 3])
    p = output.sigmoid()
    bce = -((y * p.log() + (1 - y) * (1 - p).log()).mean(dim=1) * weight).mean()
    unit = latent / latent.norm(dim=1, keepdim=True)
    old_unit = old_latent / old_latent.norm(dim=1, keepdim=True)
    distillation = ((1 - (unit * old_unit).sum(dim=1)) * weight).mean()
    expected = bce + 5 * (3 / 2) ** 0.5 * distillation + 3 * sum(pairs) / len(pairs)
    _, loss = method.observe(x, y, in_buffer)
    assert loss == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("in_buffer", [False, True])
def test_lucir_loss_is_finite_without_a_pair_to_rank(in_buffer):
    method = prepared_for_second_task("lucir")
    y = torch.tensor([[0, 0, 0, 1, 1], [1, 0, 0, 1, 1]]).float()  # no new class is a rival
    _, loss = method.observe(torch.randn(2, 5), y, torch.tensor([in_buffer] * 2))
    assert np.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in method.net.parameters())


def test_agem_projects_the_gradient_only_when_it_conflicts():
    generator = torch.Generator().manual_seed(0)
    conflicts = 0
    for _ in range(100):
        gradient, reference = torch.randn(2, 8, generator=generator, dtype=torch.float64)
        projected = project(gradient, reference)
        if gradient @ reference >= 0:
            assert torch.equal(projected, gradient)
            continue
        conflicts += 1
        assert abs(projected @ reference) < 1e-12
        # nearest: what was removed is parallel to the reference
        removed = gradient - projected
        cosine = torch.nn.functional.cosine_similarity(removed, reference, dim=0)
        assert cosine == pytest.approx(-1.0)
    assert 20 < conflicts < 80
    gradient = torch.randn(8)
    assert torch.equal(project(gradient, torch.zeros(8)), gradient)


@pytest.mark.parametrize("batch_size", [4, 6, 50])
def test_agem_draws_full_batches_of_passes_over_all_memories(batch_size):
    _, buffer = toy_task(1)
    stream = memory_batches(
        buffer, GOLDEN["class_names_to_idx"], 5, batch_size=batch_size, seed=0, device="cpu"
    )
    shown = []
    for _ in range(6):
        batch = next(stream)
        slots = -1 - batch.sample_ids
        assert len(slots) == min(batch_size, 6)  # never more than exist
        assert torch.equal(batch.images, buffer.x[slots])
        found = [f"c{i}" for i in batch.targets.argmax(dim=1)]
        assert found == [buffer.labels[slot] for slot in slots]
        assert (batch.targets.sum(dim=1) == 1).all() and batch.in_buffer.all()
        shown += slots.tolist()
    passes = [shown[start : start + 6] for start in range(0, len(shown), 6)]
    assert all(sorted(p) == list(range(6)) for p in passes)
    assert len({str(p) for p in passes}) == len(passes)


def test_agem_uses_the_stream_that_it_is_given():
    method = toy_method("agem")
    method.prepare_model_for_new_task()
    _, buffer = toy_task(1)
    given = memory_batches(buffer, GOLDEN["class_names_to_idx"], 5, batch_size=4, seed=0)
    taken = []

    def stream():
        for batch in given:
            taken.append(batch)
            yield batch

    method.prepare_model_for_new_task(memory_batches=stream())
    for _ in range(3):
        method.observe(torch.randn(4, 5), torch.ones(4, 5))
    assert len(taken) == 3


def test_the_teacher_neither_learns_nor_leaves_evaluation_mode():
    method = toy_method("icarl_cnn")
    method.prepare_model_for_new_task()
    assert method.old_net is None
    method.prepare_model_for_new_task()
    before = {key: value.clone() for key, value in method.old_net.state_dict().items()}
    method.train()
    assert method.net.training and not method.old_net.training
    method.observe(torch.randn(4, 5), torch.ones(4, 5))
    assert all(torch.equal(before[k], v) for k, v in method.old_net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in method.old_net.parameters())


@pytest.mark.parametrize("sigma, n_parameters", [(True, 13), (2.5, 12), (False, 12)])
def test_cosine_layers_give_scaled_cosines(sigma, n_parameters):
    whole, split = CosineLinear(4, 3, sigma), SplitCosineLinear(4, 1, 2, sigma)
    x = torch.randn(5, 4)
    scale = 2.5 if sigma == 2.5 else 1.0
    for layer, weights in (
        (whole, whole.weight),
        (split, torch.cat([split.fc1.weight, split.fc2.weight])),
    ):
        assert sum(parameter.numel() for parameter in layer.parameters()) == n_parameters
        output = layer(x)
        for row in range(5):
            for column in range(3):
                w = weights[column]
                cosine = (x[row] @ w) / (x[row].norm() * w.norm())
                assert output[row, column].item() == pytest.approx(scale * cosine.item(), abs=1e-5)


def test_mlp_has_one_head_or_one_per_task():
    output, latent = MLP((3, 2, 2), 2, 5, num_hidden_layers=2, hidden_sizes=[8, 6])(
        torch.randn(4, 3, 2, 2)
    )
    assert (output.shape, latent.shape) == ((4, 10), (4, 6))
    outputs, latent = MLP(12, 2, [5, 3], multi_head=True)(torch.randn(4, 12))
    assert [head.shape for head in outputs] == [(4, 5), (4, 3)] and latent.shape == (4, 128)
    with pytest.raises(ConfigurationError, match="classes_per_task: expected 2"):
        MLP(12, 2, [5])


@pytest.mark.parametrize(
    "key, loss, settings",
    [
        (
            "contrastive_distance_loss(p=2,temperature=0.5)",
            contrastive_distance_loss,
            {"temperature": 0.5},
        ),
        ("triplet_margin_loss(p=2,base_margin=1)", triplet_margin_loss, {"base_margin": 1}),
    ],
)
def test_distance_loss_gives_the_published_number(key, loss, settings):
    utils = GOLDEN["utils"]
    vectors, references = torch.tensor(utils["input_vectors"]), torch.tensor(utils["ref_vectors"])
    expected, nearest = utils[key]
    labels = torch.tensor(utils["labels_one_hot"])
    value, found = loss(vectors, references, labels, p=2, **settings)
    assert value.item() == pytest.approx(expected, abs=1e-5)
    assert found.tolist() == nearest
    distance = l_distance(vectors, references)
    torch.testing.assert_close(distance, torch.tensor(utils["l_distance"]), atol=1e-5, rtol=1e-5)


def test_distance_takes_other_norms():
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]])
    found = {p: l_distance(a, b, p).item() for p in (1, 2, "fro", None, "inf")}
    assert found == {1: 7.0, 2: 5.0, "fro": 5.0, None: 5.0, "inf": 4.0}


def test_gradient_goes_into_a_vector_and_back():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(2, 1)).to(
        memory_format=torch.channels_last
    )
    network[0].bias.requires_grad_(False)
    network[0](torch.randn(1, 2, 4, 4)).square().sum().backward()  # the linear layer has none
    gradient = get_gradient(network)
    weight = network[0].weight.grad.clone()
    assert gradient.shape == (3 * 2 * 9 + 2 + 1,) and (gradient[-3:] == 0).all()
    assert torch.equal(gradient[:54], weight.flatten())
    update_gradient(network, 2 * gradient)
    assert torch.equal(network[0].weight.grad, 2 * weight)
    assert network[0].bias.grad is None
    with pytest.raises(ValueError, match="57"):
        update_gradient(network, gradient[1:])


def test_subset_sampler_gives_the_indices_in_order():
    sampler = SubsetSampler([5, 1, 3])
    assert (list(sampler), len(sampler)) == ([5, 1, 3], 3)


@pytest.mark.parametrize("case", GOLDEN["herding"])
def test_herding_chooses_the_published_exemplars_in_order(case):
    latents = torch.tensor(case["latent"])
    assert herding(latents, case["n_memories_per_class"]).tolist() == case["chosen_in_order"]


def test_herding_chooses_no_sample_twice_even_among_equals():
    chosen = herding(torch.ones(6, 3), 4)
    assert len(set(chosen.tolist())) == 4
    assert sorted(herding(torch.randn(3, 2), 10).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("case", GOLDEN["metrics"])
@pytest.mark.parametrize(
    "name", ["modified_jaccard_sim", "jaccard_sim", "strict_accuracy", "recall"]
)
def test_metric_gives_the_published_number(name, case):
    predictions = torch.tensor(case["predictions"]).bool()
    target = torch.tensor(case["target"]).bool()
    value = METRICS[name](predictions, target)
    assert type(value) is float and round(value, 4) == pytest.approx(case[name], abs=1e-4)
    assert value == pytest.approx(case[name], abs=1e-5)


def test_a_metric_of_nothing_or_of_everything_is_a_float():
    for n in (0, 3):
        for of_all in (torch.zeros(n, 4).bool(), torch.ones(n, 4).bool()):
            scores, tasks = of_all.float(), torch.zeros(4, dtype=torch.int64)
            given = (of_all, of_all, scores, tasks, torch.eye(4).bool())
            values = {name: metric(*given) for name, metric in METRICS.items()}
            assert {type(value) for value in values.values()} == {float}
            for name, metric in METRICS.items():
                assert metric.may_be_undefined or 0 <= values[name] <= 1


def test_metrics_of_nothing_are_numbers():
    nothing = torch.zeros(0, 4, dtype=torch.bool)
    tasks = torch.zeros(4, dtype=torch.int64)
    of_nothing = (nothing, nothing, nothing.float(), tasks, torch.eye(4).bool())
    always = [metric for metric in METRICS.values() if not metric.may_be_undefined]
    assert {metric(*of_nothing) for metric in always} == {0.0}
    silent = torch.zeros(3, 4, dtype=torch.bool)
    of_silent = (silent, silent, silent.float(), tasks, torch.eye(4).bool())
    assert all(np.isfinite(metric(*of_silent)) for metric in always)


@pytest.mark.parametrize(
    "layers, millions", [(20, 0.27), (32, 0.47), (44, 0.66), (56, 0.86), (110, 1.73)]
)
def test_resnetcifar_has_the_published_size(layers, millions):
    network = ResNetCIFAR(num_classes=10, num_layers=layers)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.005)


def moments_of(make, n_seeds):
    values = []
    for seed in range(n_seeds):
        torch.manual_seed(seed)
        values.append([parameter.detach() for parameter in make().parameters()])
    return [
        (list(each[0].shape), float(joined.mean()), float(joined.std(correction=0)), joined.numel())
        for each in zip(*values, strict=True)
        for joined in [torch.cat([value.flatten() for value in each])]
    ]


@pytest.mark.parametrize("made", list(MOMENTS["networks"]))
def test_initial_weights_have_the_moments_of_the_published_network(made):
    found = moments_of(lambda: eval(made), n_seeds=1 if "ResNet(" in made else 20)
    published = MOMENTS["networks"][made]
    assert [shape for shape, *_ in found] == [shape for shape, *_ in published]
    for (_, mean, std, n), (shape, published_mean, published_std) in zip(
        found, published, strict=True
    ):
        tolerance = 4 * published_std / n**0.5  # for a mean of n draws; the std varies less
        assert mean == pytest.approx(published_mean, abs=2 * tolerance + 6e-4), shape
        assert std == pytest.approx(published_std, rel=0.04 + 4 / (2 * n) ** 0.5), shape


def test_networks_return_output_and_latent():
    output, latent = ResNetCIFAR(num_classes=7, num_layers=8)(torch.randn(2, 3, 32, 32))
    assert (output.shape, latent.shape) == ((2, 7), (2, 64))
    assert latent.min() < 0
    _, latent = ResNetCIFAR(num_layers=8, relu_last_hidden=True)(torch.randn(2, 3, 32, 32))
    assert latent.min() >= 0
    output, latent = ResNet(num_classes=7, num_layers=18)(torch.randn(1, 3, 64, 64))
    assert (output.shape, latent.shape) == ((1, 7), (1, 512))


@pytest.mark.parametrize("network, layers", [(ResNetCIFAR, 18), (ResNetCIFAR, 2), (ResNet, 20)])
def test_an_unknown_depth_is_refused(network, layers):
    with pytest.raises(ConfigurationError, match=str(layers)):
        network(num_layers=layers)


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigurationError, match="icarl_cnn"):
        get_method("icarl_ccn")


def test_the_learning_rate_follows_its_schedule_or_a_plateau():
    parameters = [nn.Parameter(torch.zeros(1))]
    optimizer, scheduler = get_optimizer(parameters, lr=1.0, lr_gamma=0.1, lr_schedule=[2])
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0, 1.0, 0.1])
    optimizer, scheduler = get_optimizer(
        parameters, "adam", lr=1.0, lr_gamma=0.1, lr_schedule=[1], reduce_lr_on_plateau=True
    )
    for _ in range(12):
        scheduler.step(0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    with pytest.raises(ConfigurationError, match="'sdg'"):
        get_optimizer(parameters, "sdg")


def test_label_names_become_indicator_vectors():
    index = {"a": 0, "b": 1, "d": 3}
    one = transform_labels_names_to_vector(["b", "None", "d"], 3, index)
    assert one.tolist() == [0, 1, 0]
    batch = list(zip(("b", "a"), ("None", "b"), strict=True))  # as in the published training loop
    several = transform_labels_names_to_vector(batch, 3, index)
    assert several.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert transform_labels_names_to_vector([], 3, index).shape == (0, 3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epochs": 3}, "epochs_per_task"),
        ({"lr": -1}, "lr"),
        ({"epochs_per_task": 0}, "epochs_per_task"),
        ({"optimizer": "sdg"}, "optimizer.*did you mean 'sgd'"),
        ({"n_memories_per_class": 3, "total_n_mems": 4}, "exclude"),
        ({"n_memories_per_class": -1}, "total_n_mems"),
        ({"buffer": "lmdb"}, "buffer"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ExperimentConfig.parse({"benchmark": "b", "data": "d", "method": "m"} | settings)


def test_settings_are_read_from_a_published_dictionary():
    published = {"lr": 0.5, "n_memories_per_class": 20, "group": "x", "method": "agem"}
    assert MethodConfig.from_any(published).lr == 0.5
    assert BufferConfig.from_any(published).n_memories_per_class == 20


def test_a_gradient_that_is_overwritten_keeps_the_layout_of_its_parameter():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    net(torch.randn(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)).sum().backward()
    net[1].bias.grad = None
    vector = torch.randn_like(get_gradient(net))
    update_gradient(net, vector)
    assert torch.equal(get_gradient(net), vector)
    for parameter in net.parameters():
        assert parameter.grad.stride() == parameter.stride()
    vector.zero_()
    assert get_gradient(net).all()  # the gradients are copies
