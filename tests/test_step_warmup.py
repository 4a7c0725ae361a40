"""A warm-up by steps: the rate of every step, its end in an epoch, its state, captured steps."""

import copy

import pytest
import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.training.graphed_step import WARM_UP_STEPS, GraphedStep
from tests.tape import TapeCapture

EPOCH = 5  # steps
OPTIMIZERS = ["momentum", "sgd", "adam", "adamw"]


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.output_layer = nn.Linear(12, 4)

    def forward(self, images):
        return self.model.output_layer(images.flatten(1)), images.flatten(1)


def made(model=METHODS["finetune"].model, **settings):
    torch.manual_seed(0)
    settings = {
        "lr": 0.4,
        "epochs_per_task": 4,
        "first_task_epochs": 4,
        "lr_warmup": "7steps",
    } | settings
    return model([2, 2], {name: index for index, name in enumerate("abcd")}, settings, net=Toy())


def batch(number, n_seen):
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(6, 3, 2, 2, generator=generator)
    targets = torch.eye(n_seen)[torch.arange(6) % n_seen]
    return Batch(images, targets, torch.zeros(6, dtype=torch.bool), torch.arange(6))


def learn(method, n_tasks=2, step=None, start=0, stop=4 * EPOCH):
    """Return the learning rates and losses of all steps."""
    found = []
    for _ in range(n_tasks):
        if start == 0:
            method.prepare_model_for_new_task()
        for number in range(start, stop):
            method.train()
            rates = method.get_last_lr()
            assert max(method.get_epoch_lr()) >= max(rates)
            _, loss = (step or method.training_step)(batch(number, method.n_seen_classes))
            found.append((*rates, float(loss)))
            if (number + 1) % EPOCH == 0:
                method.consolidate_epoch_knowledge()
    return found


@pytest.mark.parametrize(
    ("schedule", "of_epochs"),
    [
        ({}, [0.4, 0.4, 0.4, 0.4]),
        ({"lr_schedule": [1, 3], "lr_gamma": 0.5}, [0.4, 0.2, 0.2, 0.1]),
        ({"lr_cosine": True}, [0.4, 0.4 * (1 + 0.5**0.5) / 2, 0.2, 0.4 * (1 - 0.5**0.5) / 2]),
    ],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_rate_of_each_step_is_that_of_its_epoch_times_a_factor_that_rises(
    optimizer, schedule, of_epochs
):
    found = learn(made(optimizer=optimizer, **schedule))
    factors = [min((number + 1) / 8, 1.0) for number in range(4 * EPOCH)]
    expected = [of_epochs[number // EPOCH] * factors[number] for number in range(4 * EPOCH)] * 2
    assert [rates for rates, _ in found] == pytest.approx(expected)


def test_groups_of_parameters_keep_the_ratio_of_their_rates():
    class Grouped(METHODS["finetune"].model):
        def parameter_groups(self):
            layer = self.net.model.output_layer
            return [{"params": [layer.weight]}, {"params": [layer.bias], "lr_factor": 0.1}]

    for first, second, _ in learn(made(Grouped)):
        assert second == pytest.approx(0.1 * first)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [3, 6, 9])  # in the first epoch, in the second, after the warm-up
def test_a_warm_up_resumes_bit_for_bit(optimizer, stop):
    unbroken, first, second = (made(optimizer=optimizer, lr_cosine=True) for _ in range(3))
    expected = learn(unbroken, 1)
    found = learn(first, 1, stop=stop)
    second.load_method_state_dict(copy.deepcopy(first.method_state_dict()))
    assert found + learn(second, 1, start=stop) == expected
    weights = (each.net.model.output_layer.weight for each in (unbroken, second))
    assert torch.equal(*weights)


def test_a_state_without_a_warm_up_is_what_earlier_releases_read():
    assert "warmup_steps" not in made(lr_warmup=1).method_state_dict()
    epochs = [lr for lr, _ in learn(made(lr_warmup=1), 1)]
    assert epochs == [0.2] * EPOCH + [0.4] * 3 * EPOCH


def test_a_captured_step_sees_every_rate_of_the_warm_up():
    eager, graphed, capture = made(), made(), TapeCapture()
    expected = learn(eager)
    found = learn(graphed, step=GraphedStep(graphed, 6, capture))
    assert found == expected
    assert capture.n_recordings == 2  # once in each task, after the warm-up
    assert capture.n_replays == 2 * (4 * EPOCH - 7 - WARM_UP_STEPS)


@pytest.mark.parametrize(
    ("given", "read"), [(3, 3), ("3", 3), (" 500 steps ", "500steps"), ("1step", "1step")]
)
def test_a_warm_up_is_a_number_of_epochs_or_of_steps(given, read):
    values = {"benchmark": "b", "data": "d", "method": "m", "lr_warmup": given}
    assert ExperimentConfig.parse(values).lr_warmup == read


@pytest.mark.parametrize("given", ["5s", "0steps", "1.5steps", "steps", -1, True, 1.5, None])
def test_another_value_of_a_warm_up_is_an_error_that_shows_both_forms(given):
    values = {"benchmark": "b", "data": "d", "method": "m", "lr_warmup": given}
    with pytest.raises(ConfigurationError, match=r"lr_warmup: .*(500steps|above 0)"):
        ExperimentConfig.parse(values)


def test_a_warm_up_by_steps_excludes_a_schedule_by_validation():
    with pytest.raises(ConfigurationError, match="lr_warmup excludes reduce_lr_on_plateau"):
        made(reduce_lr_on_plateau=True)
