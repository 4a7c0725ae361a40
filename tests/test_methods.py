"""Methods, herding and metrics against the published definitions' numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.buffer.selection import herding
from iirc_train.config import BufferConfig, ExperimentConfig, MethodConfig
from iirc_train.methods import METHODS, get_method
from iirc_train.metrics import METRICS, compute_metrics
from iirc_train.models import ResNet, ResNetCIFAR
from iirc_train.utils import get_optimizer, transform_labels_names_to_vector

GOLDEN = json.loads((Path(__file__).parent / "golden" / "methods_golden.json").read_text())


class ToyNetwork(nn.Module):
    """The reference values' network."""

    def __init__(self, parameters=None, n_classes=7):
        super().__init__()
        self.model = nn.Module()
        self.model.hidden = nn.Linear(5, 4)
        self.model.output_layer = nn.Linear(4, n_classes)
        if parameters is not None:
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


@pytest.mark.parametrize("name", list(METHODS))
def test_method_gives_the_published_numbers(name):
    reference = GOLDEN["methods"][name]
    method = toy_method(name, reference["initial_parameters"])
    for task in reference["tasks"]:
        method.prepare_model_for_new_task()
        for step in task["steps"]:
            x, y = torch.tensor(step["x"]), torch.tensor(step["y"], dtype=torch.float32)
            in_buffer = torch.tensor(step["in_buffer"], dtype=torch.bool)
            _, valid_loss = method.observe(x, y, in_buffer, train=False)
            predictions, train_loss = method.observe(x, y, in_buffer, train=True)
            assert valid_loss == pytest.approx(step["valid_loss"], abs=1e-5)
            assert train_loss == pytest.approx(step["train_loss"], abs=1e-5)
            assert predictions.dtype == torch.bool
            assert torch.equal(predictions, torch.tensor(step["predictions"]).bool())
        for key, values in task["parameters_after_training"].items():
            found = method.net.state_dict()[key]
            torch.testing.assert_close(found, torch.tensor(values), atol=1e-5, rtol=1e-5)
        found = method(torch.tensor(task["eval_x"]))
        assert torch.equal(found, torch.tensor(task["eval_predictions"]).bool())


@pytest.mark.parametrize("name", list(METHODS))
def test_memory_strength_weighs_the_loss_of_replayed_samples(name):
    x, y = torch.randn(6, 5), (torch.rand(6, 3) > 0.5).float()
    in_buffer = torch.tensor([1, 0, 1, 0, 0, 1]).bool()
    parameters = GOLDEN["methods"][name]["initial_parameters"]
    method = toy_method(name, parameters, memory_strength=3.0)
    method.prepare_model_for_new_task()
    _, loss = method.observe(x, y, in_buffer, train=False)
    logits = method.net(x)[0][:, :3] / GOLDEN["config"]["temperature"]
    each = -(y * logits.sigmoid().log() + (1 - y) * (1 - logits.sigmoid()).log()).mean(dim=1)
    weight = torch.tensor([3.0, 1, 3, 1, 1, 3])
    assert loss == pytest.approx(((each * weight).sum() / 6).item(), abs=1e-5)


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
