"""Runs that stop within an epoch and resume there, as if they had not stopped."""

import json
import os
import random
import signal
from contextlib import suppress

import pytest
import torch

from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.training.launch import continue_experiment, run_experiment
from tests.test_resume import QUIET, assert_equal_runs

SEEDS = range(int(os.environ.get("MID_EPOCH_SEEDS", "1")))


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {
        "network": "tests.small_network:Small",
        "n_layers": None,
        "batch_size": 8,
        "threads": 1,
        "decoder": "pillow",
        "buffer_sampling_multiplier": 1.5,
        "use_best_model": True,
        "reduce_lr_on_plateau": True,
    }


@pytest.fixture
def ask_to_stop(monkeypatch):
    """Return a function that lets the step of a number, counted over a session, get Ctrl-C."""

    def at_step(number: int) -> None:
        n_steps = 0

        def step(self, batch):
            nonlocal n_steps
            n_steps += 1
            if n_steps == number:
                signal.raise_signal(signal.SIGINT)
            return training_step(self, batch)

        monkeypatch.setattr(BaseMethod, "training_step", step)

    training_step = BaseMethod.training_step
    return at_step


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_stops_at_any_step_ends_like_an_unbroken_one(
    settings, tmp_path, ask_to_stop, method, seed
):
    """Each part keeps images resident, or decodes them in every epoch."""
    chance = random.Random(f"{method} {seed}")
    config = ExperimentConfig.parse(settings | {"method": method})
    expected = run_experiment(config, tmp_path / "unbroken", QUIET)
    run, positions = tmp_path / "run", []
    for longest in (2, 12, 12):
        part = config.model_copy(update={"resident": chance.random() < 0.5})
        ask_to_stop(chance.randint(1, longest))
        with suppress(KeyboardInterrupt):
            continue_experiment(part, run, QUIET)
        positions.append(load_checkpoint(run / "checkpoints/last.pt")["position"])
    assert len(positions[0]) == 3  # amid the first epoch
    ask_to_stop(0)
    torch.manual_seed(5)
    continue_experiment(config.model_copy(update={"resident": seed % 2 == 0}), run, QUIET)
    assert_equal_runs(run, expected)
    timings = [(r / "timings.jsonl").read_text().splitlines() for r in (run, expected)]
    images = [[json.loads(line)["images"] for line in lines] for lines in timings]
    assert images[0] == images[1]
