"""Whole runs on the tiny benchmark: the trainer, the run's folder, the command."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner

from iirc_data.definitions import TRAIN
from iirc_data.errors import ConfigurationError
from iirc_train.cli import app as cli
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.methods.settings import experiment_config
from iirc_train.report.tables import task_tables
from iirc_train.report.wide_tables import print_tables
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.run.results import read_results
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training.components import Experiment
from iirc_train.training.launch import run_experiment
from iirc_train.training.trainer import Position, Training
from tests.ce_methods import config_for

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {"method": "icarl_cnn"}


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    return run_experiment(ExperimentConfig.parse(settings), output, QUIET)


def test_every_seen_task_and_all_seen_classes_are_evaluated_after_each_task(run):
    records = [r for r in read_metrics(run) if r["kind"] == "evaluation"]
    found = {(record["split"], record["after_task"], record["task"]) for record in records}
    tasks = [(t, k) for t in range(4) for k in [*range(t + 1), "all"]]
    assert found == {(s, t, k) for s in ("posttask_valid", "test") for t, k in tasks}
    records = [r for r in records if r["split"] == "test"]
    together = {r["after_task"]: r["n_samples"] for r in records if r["task"] == "all"}
    assert together == {0: 25, 1: 25, 2: 28, 3: 28}  # each sample once, though two tasks show it


def test_the_first_task_trains_twice_as_long(run):
    epochs = [r for r in read_metrics(run) if r["kind"] == "epoch" and r["split"] == "train"]
    assert [record["task"] for record in epochs] == [0, 0, 1, 2, 3]
    assert all(math.isfinite(record["loss"]) for record in epochs)


def test_the_configuration_is_kept_with_the_run(run, settings):
    kept = yaml.safe_load((run / "config.yaml").read_text())
    resolved = {"loss": "bce", "decision": "threshold"}
    resolved["first_task_epochs"] = 2 * settings["epochs_per_task"]
    assert experiment_config(**kept) == experiment_config(**settings | resolved)


@pytest.mark.parametrize("change", [{}, {"decoder": "pillow"}])
def test_the_same_run_again_gives_the_same_metrics(run, settings, tmp_path, change):
    config = ExperimentConfig.parse(settings | change)
    again = run_experiment(config, tmp_path / "again", QUIET)
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_another_seed_gives_another_run(run, settings, tmp_path):
    config = ExperimentConfig.parse(settings | {"seed": 1})
    other = run_experiment(config, tmp_path / "other", QUIET)
    assert (other / "metrics.jsonl").read_bytes() != (run / "metrics.jsonl").read_bytes()


def test_a_run_learns_what_it_trains_on(settings, tmp_path):
    config = ExperimentConfig.parse(
        settings | {"method": "finetune", "epochs_per_task": 4, "optimizer": "adam", "lr": 0.01}
    )
    run = run_experiment(config, tmp_path / "run", QUIET)
    losses = [
        record["loss"]
        for record in read_metrics(run)
        if record["kind"] == "epoch" and record["split"] == "train" and record["task"] == 0
    ]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "icarl_cnn"])
def test_every_method_runs(settings, tmp_path, method):
    config = config_for(method, settings)
    records = read_metrics(run_experiment(config, tmp_path / "run", QUIET))
    evaluations = [r for r in records if r["kind"] == "evaluation" and r["task"] == "all"]
    assert len(evaluations) == 2 * 4  # post-task validation and test
    assert all(math.isfinite(r["loss"]) for r in records if "loss" in r)
    of_tasks = [r.get("statistics_bytes") for r in records if r["kind"] == "task"]
    model = METHODS[method].model
    keeps = model.parameter_statistics or model.class_statistics or model.learns_by_statistics
    assert all(of_tasks) == bool(keeps)


def test_a_method_that_takes_memories_apart_gets_one_stream_per_task(settings):
    experiment = Experiment(ExperimentConfig.parse(settings | {"method": "agem"}))
    assert experiment.memory_batches(experiment.view(TRAIN, 0)) is None  # nothing is kept yet
    experiment.buffer.update_buffer_new_task(experiment.task_data(0))
    streams = [experiment.memory_batches(experiment.view(TRAIN, t)) for t in (1, 1, 2)]
    orders = [[next(stream).sample_ids.tolist() for _ in range(4)] for stream in streams]
    assert orders[0] == orders[1] != orders[2]


def test_memories_of_earlier_tasks_are_replayed(settings, tmp_path):
    config = ExperimentConfig.parse(settings)
    experiment = Experiment(config)
    seen = []
    step = experiment.method.training_step

    def spy(batch):
        seen.append((experiment.method.cur_task_id, int(batch.in_buffer.sum())))
        return step(batch)

    experiment.method.training_step = spy
    training = Training(experiment, RunDirectory.create(tmp_path / "run", config))
    for task in range(3):
        training.position = Position(task)
        training.learn_task(TrainingProgress(QUIET, "t", 4))
    replayed = {task: sum(n for t, n in seen if t == task) for task in range(3)}
    assert replayed == {0: 0, 1: 6, 2: 12}


def test_a_folder_with_a_run_is_not_overwritten(run, settings):
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigurationError, match="holds a run already"):
        run_experiment(ExperimentConfig.parse(settings), run, QUIET)
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_device_that_is_not_there_is_refused(settings):
    with pytest.raises(ConfigurationError, match="cuda"):
        Experiment(ExperimentConfig.parse(settings | {"device": "cuda"}))


def test_the_table_shows_the_run(run, tmp_path):
    results = read_results(run, "tiny run")
    console = Console(record=True, width=120, quiet=False, file=(tmp_path / "out").open("w"))
    print_tables(console, task_tables(results))
    text = console.export_text()
    assert "tiny run" in text and f"{results.all_seen[-1]:.3f}" in text


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        read_results(tmp_path)


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_train_command_trains_and_prints_the_table(settings, tmp_path, run):
    flags = [
        item for name, value in settings.items() for item in (f"--{name.replace('_', '-')}", value)
    ]
    result = command("train", "--output", tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    assert "all seen" in result.output
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_train_command_goes_on_with_a_run(run):
    before = (run / "metrics.jsonl").read_bytes()
    result = command("train", "--resume", run)
    assert result.exit_code == 0, result.output
    assert "all seen" in result.output
    assert (run / "metrics.jsonl").read_bytes() == before  # it was finished


def test_train_help_shows_every_setting():
    runner = CliRunner(env={"COLUMNS": "200"})
    shown = runner.invoke(cli.app, ["train", "--help"]).output
    for name in ExperimentConfig.setting_names():
        field = ExperimentConfig.model_fields[name]
        assert f"--{name.replace('_', '-')} " in shown
        assert field.description is not None and field.description[:20] in shown


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (["--benchmark", "iirc_cifar01"], 1, "did you mean 'iirc_cifar10'"),
        (["--data", "/nowhere"], 1, "/nowhere does not exist"),
        (["--method", "icarll"], 1, "there is no method 'icarll'"),
        (["--lr", "-1"], 1, "lr"),
        (["--samples-per-class", "many"], 2, "--samples-per-class"),
    ],
)
def test_wrong_input_is_told_without_a_trace_and_leaves_nothing(
    settings, tmp_path, capsys, flags, code, message
):
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in settings.items()}
    given |= dict([flags])
    arguments = ["train", "--output", str(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["iirc", *arguments, *(x for item in given.items() for x in item)]
        )
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_method_without_binary_losses_refuses_two_labels(settings):
    said = r"needs samples with one label, but .* with .* and .*: lwf has no other loss, so choose"
    with pytest.raises(ConfigurationError, match=said):
        Experiment(ExperimentConfig.parse(settings | {"method": "lwf"}))
