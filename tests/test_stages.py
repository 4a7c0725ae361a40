"""Stages: epochs that a method adds to a task after its main epochs."""

import copy
import json
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.buffer import HerdingBuffer
from iirc_train.buffer.choice import balanced
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS, MethodParts, finetune
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.stages import Stage
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training import epoch
from iirc_train.training.branch import branch_experiment
from iirc_train.training.components import Experiment
from iirc_train.training.launch import continue_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.ranks import run_ranks
from tests.test_mid_epoch import NEVER, TRAINING_STEP, stop_at
from tests.test_resume import QUIET, assert_equal_runs
from tests.two_ranks import NetworkWithoutBatchStatistics

HEAD = Stage("head", 2, "balanced", settings={"lr": 0.5, "lr_cosine": True}, in_training_mode=False)
TEACHING = Stage("teaching", 1)
MEMORIES = Stage("memories", 1, "balanced", after_memories=True, settings={"optimizer": "adam"})
ALL = Stage("all", 1, after_memories=True)


class Model(finetune.Model):
    """Retrains its head, distils itself into a wider network, and learns the memories."""

    def stages_of_task(self, task_id):
        return (HEAD, TEACHING, MEMORIES, ALL) if task_id else (ALL,)

    def _prepare_stage(self, stage, task_data=None, **_):
        if stage is TEACHING:
            self.old_net = copy.deepcopy(self.net).requires_grad_(False)
            self.net.extra = nn.Linear(3, 3).to(self.device)
            self.net.extra_use = torch.nn.Parameter(torch.ones(3, device=self.device))

    def _parameters_of_stage(self, stage):
        net = self.net.model.output_layer if stage is HEAD else self.net
        return net.parameters()

    def _stage_loss(self, stage, step):
        loss = self._loss(step)
        if stage is not TEACHING:
            return loss
        teacher, _ = self.forward_old_net(step.images)
        seen = teacher[:, : self.n_seen_classes]
        used = self.net.extra(self.net.extra_use).square().mean()
        return loss + (step.output - seen).square().mean() + 0 * used

    def _finish_stage(self, stage):
        if stage is TEACHING:
            self.old_net = None
            del self.net.extra, self.net.extra_use


@pytest.fixture(autouse=True)
def staged(monkeypatch):
    monkeypatch.setitem(METHODS, "staged", MethodParts(Model, HerdingBuffer))


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {
        "network": "tests.small_network:Small",
        "n_layers": None,
        "method": "staged",
        "batch_size": 8,
        "threads": 1,
        "decoder": "pillow",
        "buffer_sampling_multiplier": 1.5,
        "use_best_model": True,
        "reduce_lr_on_plateau": True,
    }


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "staged", MethodParts(Model, HerdingBuffer))
        config = ExperimentConfig.parse(settings | {"save_each_task_model": True})
        return run_experiment(config, tmp_path_factory.mktemp("staged") / "unbroken", QUIET)


def test_stage_epochs_count_on_within_and_across_tasks(settings, unbroken, monkeypatch, tmp_path):
    lines = [r for r in read_metrics(unbroken) if r["kind"] == "epoch" and r["split"] == "train"]
    found = {
        task: [(r["epoch"], r.get("stage")) for r in lines if r["task"] == task] for task in (0, 1)
    }
    assert found == {
        0: [(0, None), (1, None), (2, "all")],
        1: list(enumerate([None, "head", "head", "teaching", "memories", "all"])),
    }
    assert [r["lr"] for r in lines if r["task"] == 1] == pytest.approx(
        [0.1, 0.5, 0.25, 0.1, 0.1, 0.1]
    )
    timings = [json.loads(line) for line in (unbroken / "timings.jsonl").read_text().splitlines()]
    assert [t.get("stage") for t in timings if "images" in t] == [r.get("stage") for r in lines]
    valid = [r for r in read_metrics(unbroken) if r["split"] == "intask_valid"]
    assert [r.get("stage") for r in valid] == [r.get("stage") for r in lines]
    with Experiment(ExperimentConfig.parse(settings)) as experiment:
        method = experiment.method
        assert [method.first_epoch_of_task(task) for task in range(4)] == [0, 3, 9, 15]


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_stops_within_stages_ends_like_an_unbroken_one(
    settings, unbroken, tmp_path, monkeypatch, seed
):
    chance, run = random.Random(seed), tmp_path / "run"
    for task in (0, 1, 1, 1, 2):
        n = chance.randint(1, 12)
        part = settings | {"resident": chance.random() < 0.5, "save_each_task_model": True}
        monkeypatch.setattr(BaseMethod, "training_step", stop_at(n, task_id=task))
        with suppress(KeyboardInterrupt):
            continue_experiment(ExperimentConfig.parse(part), run, QUIET)
    monkeypatch.setattr(BaseMethod, "training_step", TRAINING_STEP)
    torch.manual_seed(5)
    continue_experiment(ExperimentConfig.parse(part), run, QUIET)
    assert_equal_runs(run, unbroken)


def test_a_run_that_breaks_off_after_any_epoch_resumes_there(
    settings, unbroken, tmp_path, monkeypatch
):
    """The process dies right after each checkpoint at the end of an epoch of the second task."""
    run, positions, save = tmp_path / "run", [], Training._save

    class DiedError(Exception):
        pass

    def dying_save(self, position, epoch=None):
        save(self, position, epoch)
        if position.task_id == 1 and position not in positions:
            positions.append(position)
            raise DiedError

    config = ExperimentConfig.parse(settings | {"save_each_task_model": True})
    monkeypatch.setattr(Training, "_save", dying_save)
    for _ in range(7):
        with pytest.raises(DiedError):
            continue_experiment(config, run, QUIET)
    continue_experiment(config, run, QUIET)
    assert [position.epochs for position in positions] == list(range(7))
    assert_equal_runs(run, unbroken)


def test_each_stage_shows_the_data_that_it_names(settings, tmp_path, monkeypatch):
    shown: dict[tuple[int, str | None], list[tuple[tuple[int, ...], bool]]] = {}

    def step(self, batch):
        where = self.cur_task_id, None if self.stage is None else self.stage.name
        labels = [tuple(row.nonzero().flatten().tolist()) for row in batch.targets]
        shown.setdefault(where, []).extend(zip(labels, batch.in_buffer.tolist(), strict=True))
        return TRAINING_STEP(self, batch)

    monkeypatch.setattr(BaseMethod, "training_step", step)
    plain = {"buffer_sampling_multiplier": 1, "schedule": 1}
    run_experiment(ExperimentConfig.parse(settings | plain), tmp_path / "run", QUIET)
    # task 1 introduces three classes; 3 of each class are shown in 2 epochs
    expected = {((label,), label == 0): 6 for label in range(4)}
    assert Counter(shown[1, "head"]) == expected
    assert sorted(shown[1, "teaching"]) == sorted(shown[1, None]) == sorted(shown[1, "all"])
    assert all(is_memory for _, is_memory in shown[1, "memories"])
    assert len(shown[1, "memories"]) == 4 * 3
    samples = [labels for labels, is_memory in shown[0, None] if not is_memory]
    assert sorted(2 * [labels for labels, _ in shown[0, "all"]]) == sorted(samples)


def test_a_stage_trains_its_parameters_only_and_keeps_statistics(settings, tmp_path, monkeypatch):
    changed: dict[str, set[str]] = {}

    def step(self, batch):
        before = copy.deepcopy(self.net.state_dict())
        outputs = TRAINING_STEP(self, batch)
        if self.stage is not None and self.cur_task_id == 1:
            after = self.net.state_dict().items()
            names = {name for name, value in after if not torch.equal(value, before[name])}
            changed.setdefault(self.stage.name, set()).update(names)
        return outputs

    monkeypatch.setattr(BaseMethod, "training_step", step)
    config = ExperimentConfig.parse(settings | {"memory_strength": 2.0})
    with Experiment(config) as experiment:
        training = Training(experiment, RunDirectory.create(tmp_path / "run", config))
        for task in range(2):
            training.learn_task(TrainingProgress(QUIET, "run", 4))
            training._save(training.position._replace(task_id=task + 1, epochs=0))
        assert all(parameter.requires_grad for parameter in experiment.method.net.parameters())
    head = {"model.output_layer.weight", "model.output_layer.bias"}
    assert changed["head"] == head
    statistics = {"features.2.running_mean", "features.2.running_var"}
    assert all(changed[name] > head | statistics for name in ("teaching", "memories", "all"))


def test_a_branch_starts_after_stages(settings, unbroken, tmp_path):
    branch = branch_experiment(unbroken, 1, tmp_path / "branch", QUIET, changes={"lr": 0.1})
    ours, theirs = (read_metrics(run) for run in (branch, unbroken))
    assert ours == theirs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "stage s has 0 epochs"),
        ({"settings": {"batch_size": 3}}, "stage s sets 'batch_size': choose among lr"),
    ],
)
def test_a_wrong_stage_is_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        Stage(**{"name": "s", "epochs": 1, **wrong})


def train_part(config: ExperimentConfig, run: Path, stop: tuple[int, int]) -> None:
    """Go on with a run, and stop at a step of a task."""
    METHODS["staged"] = MethodParts(Model, HerdingBuffer)
    BaseMethod.training_step = stop_at(stop[1], None, stop[0])
    BaseMethod._make_network = lambda self: NetworkWithoutBatchStatistics(sum(self.n_cla_per_tsk))
    epoch.SECTION = 1
    with suppress(KeyboardInterrupt):
        continue_experiment(config, run, QUIET)


def test_processes_share_stages(settings, tmp_path, monkeypatch):
    """One process, then two from within a stage on, then one from within a later stage on."""
    monkeypatch.setattr(BaseMethod, "training_step", TRAINING_STEP)
    monkeypatch.setattr(BaseMethod, "_make_network", BaseMethod._make_network)
    monkeypatch.setattr(epoch, "SECTION", epoch.SECTION)
    own = {"batch_size": 6, "network": "auto", "use_best_model": False}
    config = ExperimentConfig.parse(settings | own)
    train_part(config, tmp_path / "unbroken", NEVER)
    run, found = tmp_path / "run", []
    for n, stop in ((1, (1, 13)), (2, (1, 12)), (1, NEVER)):
        if n == 1:
            train_part(config, run, stop)
        else:
            assert run_ranks(n, train_part, config, run, stop) == [0] * n
        state = load_checkpoint(run / "checkpoints/last.pt")
        found.append((state["position"], state["experiment"]["method"]["stages"]))
    assert found[:2] == [((1, 3, 12), [[1, 1], [2, 1]]), ((1, 5, 30), [[1, 1], [4, 3]])]
    for ours, theirs in zip(read_metrics(run), read_metrics(tmp_path / "unbroken"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("kept", [0, 5])
def test_a_balanced_choice_has_as_many_samples_of_a_new_class_as_memories_of_another(
    settings, kept
):
    own = {"n_memories_per_class": kept, "method": "finetune"}
    with Experiment(ExperimentConfig.parse(settings | own)) as experiment:
        experiment.buffer.update_buffer_new_task(experiment.task_data(0), method=experiment.method)
        data, buffer = experiment.task_data(1), experiment.buffer
        found = balanced(data, buffer)
        shown = Counter(data.get_labels(index)[0] for index in found.samples.tolist())
        available = {name: len(data.get_image_indices_by_cla(name)) for name in data.cur_task}
        n = kept or min(available.values())
        assert shown == dict.fromkeys(data.cur_task, n)
        assert found.memories.tolist() == list(range(len(buffer)))
        assert len(buffer) == 2 * kept
