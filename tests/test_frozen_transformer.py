"""Runs of the methods on frozen features, on a vision transformer of timm."""

import pytest
import torch
from rich.console import Console

from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.methods.frozen import FrozenMethod
from iirc_train.run.results import read_results
from iirc_train.runtime.process_group import process_group
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.ce_methods import config_for
from tests.ranks import run_ranks
from tests.test_resume import BrokenOffError, assert_equal_runs, break_off_at_save

timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")

QUIET = Console(quiet=True)
FROZEN = [name for name, parts in METHODS.items() if issubclass(parts.model, FrozenMethod)]


@pytest.fixture(scope="module")
def configs(tiny_settings, tmp_path_factory) -> dict[str, ExperimentConfig]:
    """Settings of each method, on four tasks, with random weights of a network 64 wide."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("weights") / "test_vit.pth"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), weights)
    network = {"network": "timm:test_vit", "weights": str(weights), "n_layers": None, "threads": 1}
    own = {"ranpac": {"ranpac_features": 64}}
    return {
        name: config_for(name, tiny_settings, **network, **own.get(name, {})) for name in FROZEN
    }


def train_all(configs, folder):
    torch.set_num_threads(1)
    for name, config in configs.items():
        run_experiment(config, folder / name, QUIET)


def train_all_together(configs, folder):
    # one group for all runs: a rank could join the group of the run before, which is about to end
    with process_group(torch.device("cpu")):
        train_all(configs, folder)


@pytest.fixture(scope="module")
def unbroken(configs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    train_all(configs, folder)
    return folder


@pytest.mark.parametrize("name", FROZEN)
def test_a_resumed_run_ends_with_the_same_bits(name, configs, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 5)
        run_experiment(configs[name], tmp_path / "run", QUIET)
    assert 0 < len(read_results(tmp_path / "run").all_seen) < 4
    resume_experiment(tmp_path / "run", QUIET)
    assert_equal_runs(tmp_path / "run", unbroken / name)


def test_two_processes_have_the_results_of_one(configs, unbroken, tmp_path):
    assert run_ranks(2, train_all_together, configs, tmp_path) == [0, 0]
    for name in FROZEN:
        found, expected = (read_results(folder / name).all_seen for folder in (tmp_path, unbroken))
        assert len(found) == 4
        assert found == pytest.approx(expected, abs=1e-6), name
