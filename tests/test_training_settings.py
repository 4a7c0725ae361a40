"""Effects of a run's settings: joint training, best model, replay, precision."""

import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from iirc_data.errors import ConfigurationError, TrainingError
from iirc_data.order import memories_of_epoch
from iirc_train.buffer import RandomBuffer
from iirc_train.buffer.choice import everything
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS, MethodParts, finetune
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.stages import Stage
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training import trainer
from iirc_train.training.components import Experiment
from iirc_train.training.launch import run_experiment
from iirc_train.training.trainer import Training
from tests.ce_methods import SINGLE_LABELS, config_for

QUIET = Console(quiet=True)


@pytest.fixture
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {
        "method": "finetune",
        "n_memories_per_class": 0,
        "decoder": "pillow",
        "threads": 1,
    }


@pytest.fixture
def shown(monkeypatch) -> list[tuple[int, int, torch.Tensor]]:
    """Task, sample and targets of every training sample shown."""
    seen = []
    step = BaseMethod.training_step

    def spy(self, batch):
        ids = batch.sample_ids.tolist()
        seen.extend(zip([self.cur_task_id] * len(ids), ids, batch.targets, strict=True))
        return step(self, batch)

    monkeypatch.setattr(BaseMethod, "training_step", spy)
    return seen


def evaluated(run):
    records = read_metrics(run)
    return {(r["after_task"], r["task"]) for r in records if r["kind"] == "evaluation"}


def test_joint_training_learns_all_classes_in_one_task_with_all_their_labels(
    settings, tmp_path, shown
):
    config = ExperimentConfig.parse(settings | {"joint": True})
    run = run_experiment(config, tmp_path / "run", QUIET)
    assert evaluated(run) == {(0, 0), (0, "all")}
    experiment = Experiment(config)
    view = experiment.splits["train"].view(0)
    assert view.n_seen_classes == 8
    assert {sample for _, sample, _ in shown} == set(view.sample_ids.tolist())
    assert {int(targets.sum()) for _, _, targets in shown} == {1, 2}  # a tulip has one label


def test_incremental_joint_training_shows_all_data_so_far_with_all_labels_so_far(
    settings, tmp_path, shown
):
    config = ExperimentConfig.parse(settings | {"incremental_joint": True})
    run = run_experiment(config, tmp_path / "run", QUIET)
    assert len(evaluated(run)) == 4 + 3 + 2 + 1 + 4
    sequence = Experiment(config).splits["train"]
    assert sequence.complete_information
    for task in range(4):
        ids = [sample for at, sample, _ in shown if at == task]
        assert set(ids) == set(sequence.view(range(task + 1)).sample_ids.tolist())
    labels = {task: max(int(t.sum()) for at, _, t in shown if at == task) for task in range(4)}
    assert labels == {0: 1, 1: 2, 2: 2, 3: 2}


def test_complete_information_shows_the_labels_of_earlier_tasks(settings, tmp_path, shown):
    for complete, most in [(False, 1), (True, 2)]:
        shown.clear()
        config = ExperimentConfig.parse(settings | {"complete_info": complete})
        run_experiment(config, tmp_path / str(complete), QUIET)
        assert max(int(targets.sum()) for _, _, targets in shown) == most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joint": True, "incremental_joint": True}, "exclude each other"),
        ({"incremental_joint": True, "n_memories_per_class": 2}, "set n_memories_per_class to 0"),
        ({"buffer_sampling_multiplier": -1}, "buffer_sampling_multiplier"),
        ({"checkpoint_interval": -1}, "checkpoint_interval"),
        ({"max_mems_pool_per_class": 0}, "max_mems_pool_per_class must be -1"),
        ({"reduce_lr_on_plateau": True, "lr_gamma": 1}, "needs an lr_gamma below 1"),
        (
            {"momentum": 0.5},
            "momentum 0.5 has no effect on optimizer 'momentum': set optimizer sgd",
        ),
        ({"optimizer": "adam", "momentum": 0}, "momentum 0 has no effect on optimizer 'adam'"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ExperimentConfig.parse(settings | changes)


class ChoosesForItself(finetune.Model):
    """Chooses what its main epochs show."""

    def choose_samples(self, stage, task_data, buffer, batch_size=1):
        return everything(task_data, buffer)


class LearnsAgain(finetune.Model):
    """Learns what its main epochs show once more, and then the memories too."""

    stages = (Stage("again", 1),)

    def stages_of_task(self, task_id):
        return self.stages


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (METHODS["der_expandable"].model, "stage classifier of method tried chooses among the sam"),
        (METHODS["podnet"].model, "stage balanced of method tried chooses"),
        (ChoosesForItself, "choose_samples of method tried chooses"),
        (
            type("TakesFirst", (LearnsAgain,), {"stages": (Stage("all", 1, after_memories=True),)}),
            "stage all of method tried chooses",
        ),
    ],
)
def test_incremental_joint_refuses_a_choice_among_the_samples_of_a_task(
    settings, tmp_path, monkeypatch, model, message
):
    monkeypatch.setitem(METHODS, "tried", MethodParts(model, RandomBuffer))
    benchmark = str(Path(settings["benchmark"]).with_name(SINGLE_LABELS))
    changes = {"method": "tried", "incremental_joint": True, "loss": model.losses[-1]}
    changes |= {"benchmark": benchmark}
    with pytest.raises(ConfigurationError, match=f"{message}.*use --joint"):
        run_experiment(ExperimentConfig.parse(settings | changes), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_incremental_joint_shows_a_stage_what_it_shows_the_main_epochs(
    settings, tmp_path, monkeypatch, shown
):
    monkeypatch.setitem(METHODS, "tried", MethodParts(LearnsAgain, RandomBuffer))
    config = ExperimentConfig.parse(settings | {"method": "tried", "incremental_joint": True})
    run_experiment(config, tmp_path / "run", QUIET)
    samples = [sample for task, sample, _ in shown if task == 3]
    view = Experiment(config).splits["train"].view(range(4))
    assert sorted(samples) == sorted([*view.sample_ids, *view.sample_ids])


def test_joint_training_chooses_among_all_samples(settings, tmp_path, monkeypatch, shown):
    monkeypatch.setitem(METHODS, "tried", MethodParts(ChoosesForItself, RandomBuffer))
    config = ExperimentConfig.parse(settings | {"method": "tried", "joint": True})
    run_experiment(config, tmp_path / "run", QUIET)
    view = Experiment(config).splits["train"].view(0)
    assert {sample for _, sample, _ in shown} == set(view.sample_ids.tolist())


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        *((m, {"buffer_sampling_multiplier": 2}, "mixes no memories") for m in ("agem", "er")),
        *((m, {"max_mems_pool_per_class": 5}, "choose within a class") for m in ("er", "gdumb")),
        ("slda", {"buffer_sampling_multiplier": 0.5}, "mixes no memories"),
    ],
)
def test_replay_settings_without_effect_on_the_method_are_refused(
    settings, tmp_path, method, changes, message
):
    config = ExperimentConfig.parse(
        settings | {"method": method, "n_memories_per_class": 2} | changes
    )
    (name,) = changes
    with pytest.raises(
        ConfigurationError, match=f"{name} .* no effect on method {method}, .*{message}"
    ):
        run_experiment(config, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("use_best_model", [False, True])
def test_a_task_ends_with_its_best_epoch_when_asked_to(
    settings, tmp_path, monkeypatch, use_best_model
):
    config = ExperimentConfig.parse(
        settings | {"use_best_model": use_best_model, "epochs_per_task": 2}
    )
    scores = [0.1, 0.7, 0.7, 0.3]  # of equal epochs the later one, as published
    weights = []

    def score(method, batches):
        weights.append(method.net.model.output_layer.weight.detach().clone())
        return {"modified_jaccard_sim": scores[len(weights) - 1]}

    monkeypatch.setattr(trainer, "evaluate", score)
    experiment = Experiment(config)
    training = Training(experiment, RunDirectory.create(tmp_path / "run", config))
    training.learn_task(TrainingProgress(QUIET, "run", 4))
    kept = experiment.method.net.model.output_layer.weight
    assert torch.equal(kept, weights[2 if use_best_model else 3])


def test_the_path_integral_of_si_goes_back_to_the_best_epoch_with_the_network(
    settings, tmp_path, monkeypatch
):
    config = config_for("si", settings | {"use_best_model": True, "epochs_per_task": 2})
    paths = []

    def path(method):
        return [value.clone() for value in method.statistics.of_parameters("path")]

    def score(method, batches):
        paths.append(path(method))
        return {"modified_jaccard_sim": [0.1, 0.7, 0.3, 0.2][len(paths) - 1]}

    monkeypatch.setattr(trainer, "evaluate", score)
    experiment = Experiment(config)
    monkeypatch.setattr(
        experiment.method, "consolidate_task_knowledge", lambda *_, **__: paths.append(None)
    )
    training = Training(experiment, RunDirectory.create(tmp_path / "run", config))
    training.learn_task(TrainingProgress(QUIET, "run", 4))
    assert paths[4:] == [None]
    found, best, last = path(experiment.method), paths[1], paths[3]
    assert all(map(torch.equal, found, best)) and not all(map(torch.equal, found, last))


def test_a_fraction_of_the_memories_is_drawn_anew_each_epoch(settings, tmp_path, shown):
    changes = {
        "n_memories_per_class": 4,
        "buffer_sampling_multiplier": 1.5,
        "epochs_per_task": 6,
    }
    run_experiment(ExperimentConfig.parse(settings | changes), tmp_path / "run", QUIET)
    assert sum(sample < 0 for task, sample, _ in shown if task == 1) == 6 * 12  # of 2 classes
    drawn = {tuple(sorted(memories_of_epoch(8, 1.5, 0, epoch))) for epoch in range(6)}
    assert len(drawn) > 3
    assert all(set(numbers) == set(range(8)) for numbers in drawn)
    assert len(memories_of_epoch(8, 0.0, 0, 0)) == len(memories_of_epoch(0, 1.5, 0, 0)) == 0


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_epochs_before(
    settings, tmp_path, monkeypatch
):
    step = BaseMethod.training_step

    def diverging_step(self, batch):
        predictions, loss = step(self, batch)
        return predictions, loss * (math.nan if self.cur_task_id else 1)

    monkeypatch.setattr(BaseMethod, "training_step", diverging_step)
    with pytest.raises(TrainingError, match=r"task 1, epoch 0, .*: the loss is nan from step 0 of"):
        run_experiment(ExperimentConfig.parse(settings), tmp_path / "run", QUIET)
    written = [record for record in read_metrics(tmp_path / "run") if record["kind"] != "task"]
    assert {record["task"] for record in written} == {0, "all"}
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize("method", ["icarl_cnn", "lucir"])
def test_bfloat16_is_used_where_asked_and_learns_nearly_the_same(settings, tmp_path, method):
    settings = settings | {"method": method, "n_memories_per_class": 2, "lr": 0.01}
    losses = {}
    for precision in ("fp32", "auto", "bf16"):
        config = ExperimentConfig.parse(settings | {"precision": precision, "device": "cpu"})
        records = read_metrics(run_experiment(config, tmp_path / precision, QUIET))
        losses[precision] = [record["loss"] for record in records if "loss" in record]
    assert losses["auto"] == losses["fp32"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_the_network_is_compiled_where_asked(settings, tmp_path, monkeypatch):
    compiled = []
    real = torch.compile

    def compile_eagerly(function, **options):
        compiled.append(function)
        return real(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    settings = settings | {"method": "lucir", "n_memories_per_class": 2}
    run = run_experiment(ExperimentConfig.parse(settings), tmp_path / "plain", QUIET)
    again = run_experiment(
        ExperimentConfig.parse(settings | {"compile": True}), tmp_path / "compiled", QUIET
    )
    assert len(compiled) == 1  # not anew for each task, whose head is larger
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("setting", ["use_best_model", "reduce_lr_on_plateau"])
def test_what_goes_by_validation_needs_validation_images(
    settings, tmp_path, tiny_benchmark, setting
):
    values = json.loads(tiny_benchmark.model_dump_json())
    values["splits"]["intask_valid_ratio"] = 0
    (tmp_path / "benchmark.json").write_text(json.dumps(values))
    changes = {"benchmark": str(tmp_path / "benchmark.json"), setting: True}
    with pytest.raises(ConfigurationError, match=f"{setting} needs in-task validation samples"):
        Experiment(ExperimentConfig.parse(settings | changes))


@pytest.mark.parametrize("device", ["mps", "meta", "gpu"])
def test_other_devices_are_refused(settings, device):
    with pytest.raises(ConfigurationError, match="give cpu, cuda or auto"):
        Experiment(ExperimentConfig.parse(settings | {"device": device}))


def test_a_file_in_place_of_the_run_folder_is_named(settings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot create the folder .*/file"):
        run_experiment(ExperimentConfig.parse(settings), tmp_path / "file", QUIET)
