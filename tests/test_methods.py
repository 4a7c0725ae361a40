"""Methods, herding and metrics against the published definitions' numbers."""

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
from iirc_train.buffer.selection import herding
from iirc_train.config import BufferConfig, ExperimentConfig, MethodConfig
from iirc_train.methods import METHODS, get_method
from iirc_train.metrics import METRICS, compute_metrics
from iirc_train.models import CosineLinear, ResNet, ResNetCIFAR
from iirc_train.utils import (
    get_optimizer,
    labels_index_to_one_hot,
    transform_labels_names_to_vector,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "methods_golden.json").read_text())


class ToyNetwork(nn.Module):
    """The reference values' network."""

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
    """Vectors with one label each, under the attributes of the published dataset and buffer."""

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


def toy_task(cur_task_id, n=12):
    """Return a task's samples and memories of earlier tasks."""
    earlier = [name for task in GOLDEN["tasks"][:cur_task_id] for name in task]
    task = ToySamples(torch.randn(n, 5), GOLDEN["tasks"][cur_task_id] * 6, cur_task_id)
    return task, ToySamples(torch.randn(2 * len(earlier), 5), earlier * 2)


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
def test_prepare_begins_a_task(name):
    method = toy_method(name)
    assert method.seen_classes == []
    optimizers = []
    for n_seen in (3, 5, 7):
        method.prepare_model_for_new_task()
        assert method.seen_classes == list(GOLDEN["class_names_to_idx"])[:n_seen]
        assert method(torch.zeros(2, 5)).shape == (2, n_seen)
        assert method.get_last_lr() == [GOLDEN["config"]["lr"]]
        optimizers.append(method.opt)
    assert len({id(optimizer) for optimizer in optimizers}) == 3


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


@pytest.mark.parametrize("case", GOLDEN["herding"])
def test_herding_chooses_the_published_exemplars_in_order(case):
    latents = torch.tensor(case["latent"])
    assert herding(latents, case["n_memories_per_class"]).tolist() == case["chosen_in_order"]


def test_herding_chooses_none_twice_even_among_equals():
    chosen = herding(torch.ones(6, 3), 4)
    assert len(set(chosen.tolist())) == 4
    assert sorted(herding(torch.randn(3, 2), 10).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("case", GOLDEN["metrics"])
@pytest.mark.parametrize("name", list(METRICS))
def test_metric_gives_the_published_number(name, case):
    predictions = torch.tensor(case["predictions"]).bool()
    target = torch.tensor(case["target"]).bool()
    assert float(METRICS[name](predictions, target)) == pytest.approx(case[name], abs=1e-5)


def test_metrics_of_nothing_are_numbers():
    nothing = torch.zeros(0, 4, dtype=torch.bool)
    assert set(compute_metrics(nothing, nothing).values()) == {0.0}
    silent = torch.zeros(3, 4, dtype=torch.bool)
    assert all(np.isfinite(value) for value in compute_metrics(silent, silent).values())


@pytest.mark.parametrize(
    "layers, millions", [(20, 0.27), (32, 0.47), (44, 0.66), (56, 0.86), (110, 1.73)]
)
def test_resnetcifar_has_the_published_size(layers, millions):
    network = ResNetCIFAR(num_classes=10, num_layers=layers)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.005)


def test_networks_return_output_and_latent():
    output, latent = ResNetCIFAR(num_classes=7, num_layers=8)(torch.randn(2, 3, 32, 32))
    assert (output.shape, latent.shape) == ((2, 7), (2, 64))
    assert latent.min() < 0
    _, latent = ResNetCIFAR(num_layers=8, relu_last_hidden=True)(torch.randn(2, 3, 32, 32))
    assert latent.min() >= 0
    output, latent = ResNet(num_classes=7, num_layers=18)(torch.randn(1, 3, 64, 64))
    assert (output.shape, latent.shape) == ((1, 7), (1, 512))


@pytest.mark.parametrize("network, layers", [(ResNetCIFAR, 18), (ResNetCIFAR, 2), (ResNet, 20)])
def test_a_depth_that_does_not_exist_is_refused(network, layers):
    with pytest.raises(ConfigurationError, match=str(layers)):
        network(num_layers=layers)


def test_a_method_that_does_not_exist_is_refused():
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
    with pytest.raises(ConfigurationError, match="sgd"):
        get_optimizer(parameters, "sgd")


def test_label_names_become_an_indicator_vector():
    vector = transform_labels_names_to_vector(["b", "None", "d"], 3, {"a": 0, "b": 1, "d": 3})
    assert vector.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epochs": 3}, "epochs_per_task"),
        ({"lr": -1}, "lr"),
        ({"epochs_per_task": 0}, "epochs_per_task"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"n_memories_per_class": 3, "total_n_mems": 4}, "exclude"),
        ({"n_memories_per_class": -1}, "total_n_mems"),
        ({"buffer": "lmdb"}, "buffer"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ExperimentConfig.parse({"benchmark": "b", "data": "d", "method": "m"} | settings)


def test_settings_are_taken_out_of_a_published_dictionary():
    published = {"lr": 0.5, "n_memories_per_class": 20, "group": "x", "method": "agem"}
    assert MethodConfig.from_any(published).lr == 0.5
    assert BufferConfig.from_any(published).n_memories_per_class == 20
