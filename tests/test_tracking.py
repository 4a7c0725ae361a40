"""Experiment trackers, and the lock of a run's folder."""

import json
import subprocess
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from iirc_data.errors import ConfigurationError, InUseError
from iirc_data.locks import sole_user
from iirc_train.config import ExperimentConfig
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.run.trackers import Tracking
from iirc_train.training.launch import resume_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.test_resume import QUIET


@pytest.fixture(scope="module")
def config(tiny_settings) -> ExperimentConfig:
    settings = {"method": "finetune", "threads": 1, "decoder": "pillow"}
    return ExperimentConfig.parse(tiny_settings | settings)


def curves(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_what_metrics_say(config, tmp_path):
    run = run_experiment(config, tmp_path / "run", QUIET)
    records = read_metrics(run)
    losses = [r["loss"] for r in records if r["kind"] == "epoch" and r["split"] == "train"]
    epochs, tasks = curves(run / "tensorboard" / "epochs"), curves(run / "tensorboard" / "tasks")
    assert epochs["train/loss"] == [(n, pytest.approx(loss)) for n, loss in enumerate(losses)]
    assert {"train/pw-JS", "train/learning rate", "images per second"} <= set(epochs)
    timings = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    shares = [line["waited"] / line["seconds"] for line in timings]
    assert epochs["waiting share"] == [(n, pytest.approx(share)) for n, share in enumerate(shares)]
    assert all(0 < share < 1 for share in shares)
    scores = [
        r["modified_jaccard_sim"]
        for r in records
        if r["kind"] == "evaluation" and r["split"] == "test" and r["task"] == "all"
    ]
    assert tasks["test pw-JS/all seen classes"] == [
        (n, pytest.approx(score)) for n, score in enumerate(scores)
    ]
    assert [step for step, _ in tasks["test pw-JS/task 1"]] == list(range(1, len(scores)))
    # of the hierarchy, what is tracked is shown for all classes; a level from its first labels on
    severity = [step for step, _ in tasks["test mistake severity/all seen classes"]]
    assert severity == [step for step, _ in tasks["test pw-JS at level 1/all seen classes"]]
    assert severity == list(range(1, len(scores)))
    assert not {"test pw-JS at level 0/task 0", "test edge recall/all seen classes"} & set(tasks)


def test_curves_of_a_run_that_was_broken_off_have_neither_gaps_nor_repetitions(
    config, tmp_path, monkeypatch
):
    expected = run_experiment(config, tmp_path / "unbroken", QUIET)
    evaluate = Training._evaluate

    def break_off(training, task_id):
        if task_id == 1:
            raise RuntimeError("broken off")  # after epochs that the next checkpoint would hold
        return evaluate(training, task_id)

    monkeypatch.setattr(Training, "_evaluate", break_off)
    with pytest.raises(RuntimeError, match="broken off"):
        run_experiment(
            config.model_copy(update={"checkpoint_interval": 0}), tmp_path / "run", QUIET
        )
    monkeypatch.undo()
    run = resume_experiment(tmp_path / "run", QUIET)
    for part in ("epochs", "tasks"):
        found, right = (curves(folder / "tensorboard" / part) for folder in (run, expected))
        for measured in ("images per second", "waiting share"):
            found.pop(measured, None)
            right.pop(measured, None)
        assert found == right


def test_tensorboard_can_be_switched_off(config, tmp_path):
    run = run_experiment(config, tmp_path / "run", QUIET, tracking=Tracking(tensorboard=False))
    assert not (run / "tensorboard").exists()


class WeightsAndBiasesDouble(types.ModuleType):
    """Records the calls of the package ``wandb``."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun, self.logged, self.exit_codes = [], [], []

    def init(self, **options):
        self.begun.append(options)
        return self

    def define_metric(self, *arguments, **options):
        pass

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch) -> WeightsAndBiasesDouble:
    double = WeightsAndBiasesDouble()
    monkeypatch.setitem(sys.modules, "wandb", double)
    return double


TO_WANDB = Tracking(tensorboard=False, wandb_project="iirc")


def test_weights_and_biases_goes_on_with_the_same_run(config, tmp_path, wandb, monkeypatch):
    def break_off(training, task_id):
        raise RuntimeError("broken off")

    with monkeypatch.context() as broken:
        broken.setattr(Training, "_evaluate", break_off)
        with pytest.raises(RuntimeError, match="broken off"):
            run_experiment(config, tmp_path / "run", QUIET, tracking=TO_WANDB)
    resume_experiment(tmp_path / "run", QUIET, tracking=TO_WANDB)
    assert wandb.begun[0]["id"] == wandb.begun[1]["id"]
    assert wandb.begun[0]["project"] == "iirc"
    assert wandb.begun[0]["config"] == RunDirectory.open(tmp_path / "run")[1].values()
    assert "task/test pw-JS/all seen classes" in wandb.logged[-1]
    assert wandb.exit_codes == [1, 0]


def test_weights_and_biases_that_refuses_is_one_line(config, tmp_path, wandb, monkeypatch):
    def refuse(**options):
        raise wandb.Error("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigurationError, match=r"No API key configured\. .* WANDB_MODE=offline"):
        run_experiment(config, tmp_path / "run", QUIET, tracking=TO_WANDB)


def test_weights_and_biases_that_is_not_installed_is_told_before_a_run_begins(
    config, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'iirc-pipeline\[wandb\]'"):
        run_experiment(config, tmp_path / "run", QUIET, tracking=TO_WANDB)
    assert not (tmp_path / "run").exists()


def test_two_commands_do_not_train_in_one_folder(config, tmp_path):
    run = run_experiment(config, tmp_path / "run", QUIET)
    with sole_user(run), pytest.raises(InUseError, match=r"is in use by process \d+ on "):
        resume_experiment(run, QUIET)
    with sole_user(tmp_path / "new"), pytest.raises(InUseError):
        run_experiment(config, tmp_path / "new", QUIET)


def test_the_lock_of_a_killed_command_does_not_hinder(config, tmp_path):
    run = run_experiment(config, tmp_path / "run", QUIET)
    code = (
        "import os, sys, pathlib; from iirc_data.locks import sole_user\n"
        "with sole_user(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=False)
    assert (run / ".lock").exists()
    resume_experiment(run, QUIET)
    assert not (run / ".lock").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_curves_that_cannot_be_written_do_not_stop_a_run(config, tmp_path, monkeypatch):
    expected = run_experiment(config, tmp_path / "unbroken", QUIET)
    write, written = RecordWriter.write, []

    def full_disk(self, data):
        written.append(data)
        if len(written) > 20:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full_disk)
    with pytest.warns(UserWarning, match="curves end here: .*No space left") as told:
        run = run_experiment(config, tmp_path / "run", QUIET)
    assert len([w for w in told if "curves end here" in str(w.message)]) == 1
    assert read_metrics(run) == read_metrics(expected)
