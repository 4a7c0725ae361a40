"""Training that is asked to stop, or diverges."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import yaml
from typer.testing import CliRunner

import iirc_train
from iirc_data.errors import TrainingError
from iirc_train.cli.app import app
from iirc_train.cli.train import how_to_resume
from iirc_train.config import ExperimentConfig
from iirc_train.methods.finetune import Model
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.processes import hear_ctrl_c
from tests.test_resume import QUIET, assert_equal_runs

pytestmark = pytest.mark.slow

SETTINGS = {"method": "finetune", "threads": 1, "decoder": "pillow", "epochs_per_task": 6}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_says_how_to_go_on_and_loses_nothing(
    tiny_settings, tmp_path, number
):
    settings = tiny_settings | SETTINGS | {"checkpoint_interval": 0}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    run = tmp_path / "run"
    command = ["train", "--config", tmp_path / "settings.yaml", "--output", run]
    process = subprocess.Popen(
        [sys.executable, "-m", "iirc_train", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        preexec_fn=hear_ctrl_c,
    )
    while process.poll() is None and not has_lines(run / "metrics.jsonl"):
        time.sleep(0.02)
    process.send_signal(number)
    printed = process.communicate()[0].decode()
    assert process.returncode == 128 + number, printed
    assert "stopping soon, with a checkpoint" in printed
    assert f"iirc train --resume {run}" in printed
    assert "Traceback" not in printed
    assert (run / "checkpoints" / "last.pt").exists()
    resume_experiment(run, QUIET)
    expected = run_experiment(ExperimentConfig.parse(settings), tmp_path / "unbroken", QUIET)
    assert_equal_runs(run, expected)


def test_a_command_that_is_stopped_before_its_run_begins_says_to_run_it_again(
    tiny_settings, tmp_path, monkeypatch
):
    def stop(*_, **__):
        raise KeyboardInterrupt(signal.SIGINT)

    monkeypatch.setattr("iirc_train.cli.train.continue_experiment", stop)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tiny_settings | SETTINGS))
    command = ["train", "--config", tmp_path / "settings.yaml", "--output", tmp_path / "run"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 130
    assert result.stderr == "interrupted: the run had not begun; run the same command again\n"


@pytest.mark.parametrize(
    ("rank", "hint"), [("0", "run the same command again to resume"), ("1", "")]
)
def test_under_a_launcher_the_first_process_says_to_launch_again(tmp_path, monkeypatch, rank, hint):
    (tmp_path / "config.yaml").touch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert how_to_resume(tmp_path) == hint


def test_in_python_an_interrupt_says_how_to_resume(tiny_settings, tmp_path, monkeypatch):
    def stop(method, batch):
        signal.raise_signal(signal.SIGINT)
        return training_step(method, batch)

    training_step = Model.training_step
    monkeypatch.setattr(Model, "training_step", stop)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as told:
        iirc_train.train(tiny_settings | SETTINGS, run, progress=False)
    assert told.value.__notes__ == [f"to resume the run: iirc_train.resume({str(run)!r})"]


def has_lines(path) -> bool:
    return path.exists() and path.stat().st_size > 0


def test_asked_twice_it_stops_at_once(tiny_settings, tmp_path, monkeypatch):
    learned = []
    handler = signal.getsignal(signal.SIGINT)
    training_step = Model.training_step

    def ask_twice(method, batch):
        if len(learned) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        learned.append(training_step(method, batch))
        return learned[-1]

    monkeypatch.setattr(Model, "training_step", ask_twice)
    config = ExperimentConfig.parse(tiny_settings | SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, tmp_path / "run", QUIET)
    assert len(learned) == 2
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_loss_that_is_no_number_is_told_with_step_and_checkpoint(
    tiny_settings, tmp_path, monkeypatch
):
    steps = []
    loss = Model._loss

    def sometimes_nan(method, step):
        steps.append(1)
        return loss(method, step) * (torch.nan if len(steps) >= 8 else 1.0)

    monkeypatch.setattr(Model, "_loss", sometimes_nan)
    config = ExperimentConfig.parse(tiny_settings | SETTINGS)
    with pytest.raises(TrainingError) as told:
        run_experiment(config, tmp_path / "run", QUIET)
    message = str(told.value)
    found = re.search(r"finetune, task 0, epoch (\d+), learning rate 0\.1: ", message)
    assert found, message
    epoch = int(found[1])
    n_steps = int(re.search(r"the loss is nan from step (\d+) of (\d+) on", message)[2])
    assert f"from step {7 - epoch * n_steps} of" in message
    assert f"last.pt, is of task 0 after {epoch} epochs" in message


def test_stopping_is_the_main_threads_business(tiny_settings, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    config = ExperimentConfig.parse(tiny_settings | SETTINGS | {"epochs_per_task": 1})
    train = partial(run_experiment, config, tmp_path / "run", QUIET)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train).result() == tmp_path / "run"
