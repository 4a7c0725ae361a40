"""Thresholds of labels that are fitted to the memories after each task."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.methods.calibration import best_thresholds
from iirc_train.methods.finetune import Model as Finetune
from iirc_train.methods.settings import experiment_config
from iirc_train.runtime.distributed import rank
from iirc_train.runtime.process_group import process_group
from iirc_train.testing.made_up import CLASS_NAMES_TO_IDX
from tests.ranks import run_ranks
from tests.test_hcv import Colours, Reader, indicator, method_after_three_tasks

ROWS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12)


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    return 2 * (predicted & true).sum() / (predicted.sum() + true.sum())


@given(ROWS)
def test_no_threshold_of_a_label_has_a_larger_f1(rows):
    scores, true = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    of_label = torch.from_numpy(scores).float()[:, None], torch.from_numpy(true)[:, None]
    threshold = best_thresholds(*of_label).item()
    if not true.any():
        assert threshold == 0
        return
    cuts = np.arange(-3.5, 3.5)
    best = max(cuts, key=lambda cut: (f1(scores > cut, true), cut))
    assert (scores > threshold).tolist() == (scores > best).tolist()


def test_neighbouring_numbers_are_told_apart_and_labels_do_not_mix():
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))
    scores = torch.stack((torch.stack((low, high)), torch.tensor([5.0, 1.0])), dim=1)
    targets = torch.tensor([[False, True], [True, False]])
    assert (scores > best_thresholds(scores, targets)).tolist() == targets.tolist()
    assert best_thresholds(torch.zeros(0, 3), torch.zeros(0, 3).bool()).tolist() == [0, 0, 0]
    scores = torch.randn(30, 200, generator=torch.Generator().manual_seed(0))
    targets = scores.roll(1, dims=0) > 0.5
    found = [best_thresholds(scores[:, [k]], targets[:, [k]]).item() for k in range(200)]
    assert best_thresholds(scores, targets).tolist() == found


def calibrated(**settings) -> Finetune:
    """A method after a task of a, b and c, whose network finds c only, and too often."""
    method = Finetune([3, 2, 2], CLASS_NAMES_TO_IDX, settings, net=Reader())
    method.prepare_model_for_new_task(Colours(0, {"a": [("a",)]}))
    with torch.no_grad():
        method.net.model.output_layer.bias[:3] = torch.tensor([-3.0, -3.0, 3.0])
    if method.config.calibrate_thresholds:
        memories = {"a": [("a",)] * 2 + [("b",)], "b": [("b",)] * 3, "c": [("c",)] * 3}
        method.calibrate(Colours(0, memories), batch_size=2)
    return method


def test_labels_are_predicted_by_thresholds_that_fit_the_memories():
    images = next(Colours(0, {"a": [("a",), ("b",), ("c",)]}).loader(np.arange(3), 3)).images
    assert torch.equal(calibrated()(images), indicator({2}, {2}, {2})[:, :3])
    method = calibrated(calibrate_thresholds=True)
    assert method.label_thresholds.tolist() == [-2.5, -2.5, 3.5]
    expected = indicator({0}, {1}, {2})[:, :3]
    assert torch.equal(method(images), expected)
    assert torch.equal(method.scores_and_predictions(images)[1], expected)


def test_a_memory_has_the_superclasses_that_hcv_discovered():
    method = method_after_three_tasks(hcv="train", calibrate_thresholds=True)  # d is in a
    with torch.no_grad():
        method.net.model.output_layer.weight[0, 3] = 0.9  # to d, a is a little less likely
    memories = Colours(2, {"a": [("a",)], "b": [("b",)], "d": [("d",)]})
    method.calibrate(memories)
    assert method.label_thresholds[0] == pytest.approx(-0.05)  # between 0.4 and -0.5
    method.config = method.config.model_copy(update={"hcv": "off"})
    method.calibrate(memories)
    assert method.label_thresholds[0] == pytest.approx(0.45)


def test_thresholds_fit_the_precision_that_predicts():
    method = Finetune([3, 2, 2], CLASS_NAMES_TO_IDX, {"calibrate_thresholds": True}, net=Reader())
    method.prepare_model_for_new_task(Colours(0, {"a": [("a",)]}))
    method.autocast_dtype = torch.bfloat16
    with torch.no_grad():
        method.net.model.output_layer.bias.fill_(1.001)  # 1 in bfloat16
        method.net.model.output_layer.weight[0, 0] = 0.001
    method.calibrate(Colours(0, {"a": [("a",)], "b": [("b",)]}))
    assert method.label_thresholds.tolist() == [0, 1.5, 0]  # a and b look the same to a


def test_thresholds_are_part_of_the_state_until_the_next_task():
    method = calibrated(calibrate_thresholds=True)
    copy = Finetune([3, 2, 2], CLASS_NAMES_TO_IDX, {"calibrate_thresholds": True}, net=Reader())
    copy.load_method_state_dict(method.method_state_dict())
    assert torch.equal(copy.label_thresholds, method.label_thresholds)
    copy.prepare_model_for_new_task()
    assert copy.label_thresholds is None
    assert "label_thresholds" not in calibrated().method_state_dict()["modules"]


def calibrate_as_rank(folder: Path) -> None:
    with process_group(torch.device("cpu")):
        method = calibrated(calibrate_thresholds=True)
        torch.save(method.label_thresholds, folder / f"{rank()}.pt")


def test_two_processes_find_the_thresholds_of_one(tmp_path):
    assert run_ranks(2, calibrate_as_rank, tmp_path) == [0, 0]
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert torch.equal(found, calibrated(calibrate_thresholds=True).label_thresholds)


@pytest.mark.parametrize("name", ["icarl", "mtkd"])
def test_methods_with_a_decision_of_their_own_refuse_thresholds(name):
    with pytest.raises(ConfigurationError, match=f"method {name} does not predict by thresholds"):
        METHODS[name].model([1], {"a": 0}, {"calibrate_thresholds": True}, net=Reader())
    run = {"benchmark": "iirc_cifar100", "data": "shards", "n_memories_per_class": 1}
    with pytest.raises(ConfigurationError, match=f"method {name} does not predict by thresholds"):
        experiment_config(**run, method=name, calibrate_thresholds=True)


def test_thresholds_are_refused_without_memories_and_with_argmax(tiny_settings):
    settings = {**tiny_settings, "method": "finetune", "calibrate_thresholds": True}
    with pytest.raises(ConfigurationError, match="needs memories: set n_memories_per_class or"):
        ExperimentConfig.parse({**settings, "n_memories_per_class": 0})
    with pytest.raises(ConfigurationError, match="needs decision 'threshold', got 'argmax'"):
        Finetune([1], {"a": 0}, {"calibrate_thresholds": True, "decision": "argmax"}, net=Reader())
