"""No training step and no prediction waits for the GPU, as fake CUDA tensors show without one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from iirc_train.testing import WaitsForDeviceError, check_never_waits


class TwoLayers(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.model = nn.Module()
        self.model.hidden = nn.Conv2d(3, 4, 3, stride=8)
        self.model.output_layer = nn.Linear(4, n_classes)

    def forward(self, images):
        latent = self.model.hidden(images).mean(dim=(2, 3))
        return self.model.output_layer(latent), latent


@pytest.mark.parametrize("name", METHODS)
def test_no_step_and_no_prediction_waits(name):
    check_never_waits(METHODS[name].model, autocast_dtype=torch.bfloat16, memory_strength=2.0)


@pytest.mark.parametrize("name", ["agem", "lucir"])
def test_no_step_waits_in_float32_with_adam(name):
    check_never_waits(METHODS[name].model, TwoLayers, optimizer="adam", temperature=2.0)


WAITING = {
    "item": (lambda step, error: error * error.sum().item(), "reads a value"),
    "bool": (lambda step, error: error if error.sum() > 0 else -error, "reads a value"),
    "tolist": (lambda step, error: error * sum(step.in_buffer.tolist()), "reads a value"),
    "one_hot": (lambda step, error: F.one_hot(step.targets.long()).sum() * error, "reads a value"),
    "nonzero": (lambda step, error: error[step.in_buffer.nonzero()], "shape that depends"),
    "mask": (lambda step, error: error[step.in_buffer], "shape that depends"),
    "masked rows": (lambda step, error: put(error, step.in_buffer), "counts them on the host"),
    "index": (lambda step, error: error[torch.tensor([0, 1])], "copies its indices"),
    "list": (lambda step, error: error[[0, 1]], "copies from cpu to cuda"),
    "new tensor": (lambda step, error: error * on(error, [1.0] * 4), "copies from cpu to cuda"),
    "to": (lambda step, error: error * torch.ones(4).to(error), "copies from cpu to cuda"),
    "cpu": (lambda step, error: error.cpu(), "copies from cuda to cpu"),
    "mixed": (lambda step, error: error * torch.ones(4), "(same|different) device"),
}


def on(other, values):
    return torch.tensor(values, device=other.device)


def put(error, mask):
    rows = torch.zeros_like(error)
    rows[mask] = error[:2]
    return rows + error


def method(change):
    class Changed(BaseMethod):
        def _loss(self, step):
            error = (step.output - step.targets).square().mean(dim=1)
            return change(step, error).mean()

    return Changed


@pytest.mark.parametrize("kind", WAITING)
def test_an_operation_that_waits_is_an_error_that_names_the_line(kind):
    change, message = WAITING[kind]
    with pytest.raises(WaitsForDeviceError, match=message) as raised:
        check_never_waits(method(change), TwoLayers)
    assert f"{__file__}:" in str(raised.value)


def test_scalars_fills_and_constants_of_a_task_do_not_wait():
    class Fine(method(None)):
        def _prepare_model_for_new_task(self, *args, **kwargs):
            self.weights = torch.ones(len(self.seen_classes)).to(self.device)
            self.margin = torch.tensor(0.5)

        def _loss(self, step):
            error = (step.output - step.targets) * self.weights + self.margin
            error = error.masked_fill(step.in_buffer.unsqueeze(1), 0.0)
            error[step.in_buffer] = 1.0
            return error.square().mean() * 3

    check_never_waits(Fine, TwoLayers)


def test_a_prediction_that_waits_is_found():
    class Waiting(method(lambda step, error: error)):
        def decide(self, scores):
            return scores > scores.max().item()

    with pytest.raises(WaitsForDeviceError, match=r"return scores > scores\.max\(\)\.item\(\)"):
        check_never_waits(Waiting, TwoLayers)


def test_an_error_of_the_method_itself_stays_as_it_is():
    with pytest.raises(RuntimeError, match="broadcast") as raised:
        check_never_waits(method(lambda step, error: error + error[:3]), TwoLayers)
    assert not isinstance(raised.value, WaitsForDeviceError)
