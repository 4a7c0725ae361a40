"""Runs that branch from the state of another run after one of its tasks."""

import io
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic.fields import FieldInfo
from rich.console import Console
from typer.testing import CliRunner

from iirc_data.errors import CheckpointError, ConfigurationError, IIRCError
from iirc_train.buffer import RandomBuffer
from iirc_train.cli.app import app
from iirc_train.config import ExperimentConfig
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.own_settings import own_names
from iirc_train.config.settings import Role
from iirc_train.methods import METHODS, MethodParts
from iirc_train.report.page import write_report
from iirc_train.report.runs import find_runs
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.run.record import is_finished, read_record, resolved_values
from iirc_train.training.branch import branch_experiment
from iirc_train.training.launch import repeat_experiment, resume_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.ranks import run_ranks
from tests.small_network import Small
from tests.test_resume import QUIET, BrokenOffError, assert_equal_runs, break_off_at_save, contents

TASK = 1


@pytest.fixture(scope="module")
def parent(tiny_settings, tmp_path_factory) -> Path:
    """A run whose classes have fewer memories with every task."""
    config = ExperimentConfig.parse(
        tiny_settings
        | {
            "method": "icarl_cnn",
            "network": "tests.small_network:Small",
            "n_layers": None,
            "n_memories_per_class": -1,
            "total_n_mems": 16,
            "threads": 1,
            "decoder": "pillow",
            "save_each_task_model": True,
        }
    )
    return run_experiment(config, tmp_path_factory.mktemp("parent") / "run", QUIET)


def test_a_branch_without_changes_ends_like_the_run_that_it_branches_from(parent, tmp_path):
    before = contents(parent)
    draft = tmp_path / ".branch.branch.partial"
    (draft / "buffer.zarr").mkdir(parents=True)  # of a killed command
    (draft / "config.yaml").write_text("")
    branch = branch_experiment(parent, TASK, tmp_path / "branch", QUIET)
    assert_equal_runs(branch, parent)
    assert contents(parent) == before
    (groups,) = find_runs([parent, branch]).by_benchmark().values()
    assert [len(group.runs) for group in groups] == [1, 1]  # the same result, not a second one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["branch"]
    assert branch_experiment(parent, TASK, branch, QUIET) == branch  # is finished already


def test_a_branch_with_other_settings_records_its_parent_and_shows_all_tasks(
    parent, tmp_path, monkeypatch
):
    branch, changes = tmp_path / "branch", {"lr": "0.02", "batch_size": "8", "seed": "3"}
    changes["image_preset"] = "cifar100_pycil"
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 1)
        branch_experiment(parent, TASK, branch, QUIET, changes=changes)
    branch_experiment(parent, TASK, branch, QUIET, changes=changes)
    ours, theirs = read_metrics(branch), read_metrics(parent)
    n_shared = sum(line.get("task") in (0, 1) and line.get("after_task", 0) <= 1 for line in theirs)
    assert ours[:n_shared] == theirs[:n_shared]
    assert {line["lr"] for line in ours[n_shared:] if "lr" in line} == {0.02}
    assert {line["after_task"] for line in ours if "after_task" in line} == {0, 1, 2, 3}
    assert sorted(path.name for path in (branch / "confusion").iterdir()) == sorted(
        path.name for path in (parent / "confusion").iterdir()
    )
    record = read_record(branch)
    origin = record["parent"]
    assert (origin["run"], origin["task"]) == (str(parent), TASK)
    assert origin["precision"] == ["fp32"]
    assert origin["settings"]["lr"] == {"before": 0.1, "after": 0.02}
    assert sorted(origin["settings"]) == ["batch_size", "image_preset", "lr", "seed"]
    assert record["sessions"][0]["position"] == {"task_id": TASK + 1, "epochs": 0}
    assert is_finished(branch)
    write_report(found := find_runs([parent, branch]), tmp_path / "report")
    (groups,) = found.by_benchmark().values()
    assert [group.name for group in groups] == ["icarl_cnn", "icarl_cnn, branch after task 1"]
    page = (tmp_path / "report/report.html").read_text()
    assert "parent.run" in page and str(parent) in page


def test_a_branch_may_have_another_schedule_optimizer_and_trunk(parent, tmp_path):
    before = {"lr_schedule": [1], "lr_warmup": 0}
    base = run_experiment(tried(parent, **before), tmp_path / "base", QUIET)
    plateau = run_experiment(tried(parent, reduce_lr_on_plateau=True), tmp_path / "plateau", QUIET)
    changes = {"lr_schedule": "1", "epochs_per_task": 2}
    decayed = branch_experiment(plateau, TASK, tmp_path / "decayed", QUIET, changes=changes)
    lines = [line for line in read_metrics(decayed) if line.get("task") == TASK + 1]
    assert [line["lr"] for line in lines if "lr" in line] == pytest.approx([0.1, 0.01])
    changes = {"lr_schedule": "-1", "lr_cosine": True, "trunk_lr_factor": "0.5"}
    changes |= {"optimizer": "adamw", "epochs_per_task": "2"}
    branch = branch_experiment(base, TASK, tmp_path / "branch", QUIET, changes=changes)
    lines = [line for line in read_metrics(branch) if line.get("task") == TASK + 1]
    assert [line["lr"] for line in lines if "lr" in line] == pytest.approx([0.1, 0.05])
    changes = {"reduce_lr_on_plateau": False}
    assert_equal_runs(
        branch_experiment(plateau, TASK, tmp_path / "constant", QUIET, changes=changes), parent
    )


def test_a_branch_is_trained_in_the_precision_that_it_asks_for(parent, tmp_path, monkeypatch):
    base = tmp_path / "base"
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 1)
        run_experiment(tried(parent, precision="bf16"), base, QUIET)
    resume_experiment(base, QUIET, changes={"precision": "fp32"})
    for asked in ({}, {"precision": "fp32"}, {"precision": "auto"}, {"precision": "bf16"}):
        branch = tmp_path / f"branch_{asked.get('precision')}"
        branch_experiment(base, TASK, branch, QUIET, changes=asked)
        record = read_record(branch)
        is_changed = asked == {"precision": "bf16"}
        assert resolved_values(record, "precision") == ["bf16" if is_changed else "fp32"]
        expected = {"precision": {"before": "fp32", "after": "bf16"}} if is_changed else {}
        assert record["parent"]["settings"] == expected


def test_a_branch_records_what_its_parent_did_before_it_not_what_it_does_meanwhile(
    parent, tmp_path, monkeypatch
):
    base = tmp_path / "base"
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 4)  # in task 2
        run_experiment(tried(parent, precision="fp32"), base, QUIET)
    branch_experiment(base, TASK, tmp_path / "early", QUIET)
    resume_experiment(base, QUIET, changes={"precision": "bf16"})
    assert resolved_values(read_record(base), "precision") == ["fp32", "bf16"]
    branch_experiment(base, TASK, tmp_path / "late", QUIET)
    early, late = (read_record(tmp_path / name)["parent"] for name in ("early", "late"))
    assert early == late
    assert early["precision"] == ["fp32"]


def test_what_a_branch_changes_replaces_what_it_contradicts_of_the_run(parent, tmp_path):
    settings = {"optimizer": "sgd", "momentum": 0.5, "nesterov": True, "lr_schedule": [1]}
    base = run_experiment(tried(parent, **settings), tmp_path / "base", QUIET)
    changes = {"optimizer": "adamw", "lr_cosine": True}
    branch = branch_experiment(base, TASK, tmp_path / "branch", QUIET, changes=changes)
    config = RunDirectory.open(branch)[1]
    assert (config.momentum, config.nesterov, config.lr_schedule) == (0.9, False, None)


def test_a_branch_may_keep_a_setting_without_effect_but_not_set_it(parent, tmp_path, monkeypatch):
    own = own_names(METHODS["icarl_cnn"].config)
    values = {n: v for n, v in RunDirectory.open(parent)[1].values().items() if n not in own}
    config = ExperimentConfig.parse(values | {"method": "er", "buffer_sampling_multiplier": 2})
    with monkeypatch.context() as of_earlier_release:
        of_earlier_release.setattr(
            "iirc_train.training.launch.check_has_effect", lambda config: None
        )
        base = run_experiment(config, tmp_path / "base", QUIET)
    branch_experiment(base, TASK, tmp_path / "branch", QUIET, changes={"lr": 0.01})
    with pytest.raises(ConfigurationError, match="buffer_sampling_multiplier 3 has no effect"):
        changes = {"buffer_sampling_multiplier": 3}
        branch_experiment(base, TASK, tmp_path / "other", QUIET, changes=changes)


def test_a_checkpoint_that_lacks_a_tensor_is_not_blamed_on_the_machine(parent, tmp_path):
    copy = shutil.copytree(parent, tmp_path / "parent")
    path = copy / "checkpoints/task_001.pt"
    state = load_checkpoint(path)
    state["experiment"]["method"]["modules"].popitem()
    save_checkpoint(path, state)
    for changes, message in (
        ({"checkpoint_interval": 7}, "^(?!.*another)"),
        ({"lr": 0.01}, "damaged, or does not fit a branch with another lr: "),
    ):
        with pytest.raises(CheckpointError, match=message):
            branch_experiment(copy, TASK, tmp_path / "branch", QUIET, changes=changes)


def test_notes_of_a_branch_are_printed_once(parent, tmp_path):
    console = Console(record=True, width=300, file=io.StringIO())
    branch_experiment(parent, TASK, tmp_path / "branch", console)
    assert console.export_text().count("resuming ") == 1


def tried(parent: Path, **changes: object) -> ExperimentConfig:
    settings = RunDirectory.open(parent)[1].values()
    return ExperimentConfig.parse(settings | changes, own=settings)


def test_two_processes_branch_together(parent, tmp_path):
    branch = tmp_path / "branch"
    assert run_ranks(2, start_branch, parent, branch, {"lr_cosine": True}) == [0, 0]
    assert is_finished(branch)
    assert [path.name for path in tmp_path.iterdir()] == ["branch"]


def start_branch(parent: Path, output: Path, changes: dict[str, object]) -> None:
    branch_experiment(parent, TASK, output, QUIET, changes=changes)


def test_settings_left_open_in_a_branch_are_those_of_its_benchmark(parent, tmp_path):
    changes = {"loss": "auto", "decision": "auto"}
    branch = branch_experiment(parent, TASK, tmp_path / "branch", QUIET, changes=changes)
    assert_equal_runs(branch, parent)
    assert read_record(branch)["parent"]["settings"] == {}
    config = RunDirectory.open(branch)[1]
    assert (config.loss, config.decision) == ("bce", "threshold")


class Widened(METHODS["finetune"].model):
    """Has parameters whose number is a setting."""

    class Config(MethodConfig):
        """Settings of the method."""

        width: int = 2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = torch.nn.Linear(self.config.width, 1)


def test_a_branch_that_cannot_start_from_the_state_leaves_no_folder(parent, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "widened", MethodParts(Widened, RandomBuffer))
    settings = {"method": "widened", "n_memories_per_class": 0, "total_n_mems": -1, "width": 2}
    values = RunDirectory.open(parent)[1].values() | settings
    config = ExperimentConfig.parse(
        {n: v for n, v in values.items() if n not in own_names(METHODS["icarl_cnn"].config)},
        own=["width"],
    )
    base = run_experiment(config, tmp_path / "base", QUIET)
    with pytest.raises(CheckpointError, match="not fit a branch with another width: leave"):
        branch_experiment(base, TASK, tmp_path / "branch", QUIET, changes={"width": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_that_a_branch_may_change_fits_the_state_of_the_run(name):
    """Whatever shapes the state has the role that refuses it in a branch."""
    parts = METHODS[name]
    fixed = MethodConfig.with_role(Role.STATE) | parts.config.with_role(Role.STATE)
    names = [*own_names(parts.config), "loss", "decision", "calibrate_thresholds", "hcv"]
    settings = {}
    if name == "finetune":
        names, settings = MethodConfig.setting_names(), {"optimizer": "sgd", "momentum": 0.5}
    before = made(name, **settings)
    start_tasks(before, 2)
    state = before.method_state_dict() | {"optimizer": None, "scheduler": None}
    for setting in set(names) - fixed:
        for value in others(parts.config.model_fields[setting]):
            with suppress(ConfigurationError):  # not a value that anyone may give
                after = made(name, **before.config.values() | {setting: value})
                after.load_method_state_dict(state)
                start_tasks(after, 1)
                assert after.memory_columns() == before.memory_columns()


def start_tasks(method, n):
    for _ in range(n):
        method.prepare_model_for_new_task()
        for _ in method.stages_of_task(method.cur_task_id):
            method.prepare_stage()
            method.finish_stage()


def made(name, **changes):
    names = {f"c{number}": number for number in range(6)}
    settings = {"epochs_per_task": 3, "lr": 0.1, "n_memories_per_class": 2} | changes
    return METHODS[name].model([2, 2, 2], names, settings, net=Small(6))


def others(field: FieldInfo) -> list[object]:
    """Return values of a setting that are not its default."""
    default = field.get_default()
    kinds = [field.annotation, *get_args(field.annotation)]
    found = [value for kind in kinds for value in get_args(kind) if isinstance(value, str)]
    if isinstance(default, bool):
        found.append(not default)
    elif isinstance(default, int | float):
        found += [default * 2, default / 2, default + 1, int(default / 2)]
    elif default is None:
        found += [1, [1]]
    return [value for value in found if value != default]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("finetune", {"first_task_epochs", "weights", "network", "frozen_until"}),
        ("er_ace", {"cosine_head", "first_task"}),
        ("der", {"logit_distance", "logit_precision", "reservoir_stream"}),
        ("fecam", {"fecam_tukey", "decision"}),
    ],
)
def test_what_only_counted_before_a_branch_may_not_change_in_it(method, names):
    config = METHODS[method].config
    assert names <= ExperimentConfig.with_role(Role.STATE) | config.with_role(Role.STATE)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (TASK, {"first_task_epochs": "5"}, "a branch cannot change first_task_epochs,"),
        (TASK, {"method": "finetune"}, "a branch cannot change method,"),
        (TASK, {"total_n_mems": "30"}, "a branch cannot change total_n_mems,"),
        (TASK, {"schedule": "1"}, "a branch cannot change schedule,"),
        (TASK, {"n_memories_per_class": "20"}, "a branch cannot change n_memories_per_class,"),
        (TASK, {"n_layers": 8, "lr": "0.1"}, "a branch cannot change n_layers,"),
        (TASK, {"lr": "-1"}, "lr: "),
        (TASK, {"decision": "argmax", "calibrate_thresholds": True}, "needs decision 'threshold'"),
        (3, {}, r"tasks 0 to 3, and task 3 is its last one, so nothing is left to learn: give a"),
        (7, {}, r"tasks 0 to 3, and task 7 is none: give a task from 0 to 2"),
        (2, {}, r"has not kept its state after task 2, only after 0, 1, 3: .*save-each-task-model"),
    ],
)
def test_what_cannot_be_branched_is_refused_and_leaves_no_folder(
    parent, tmp_path, task, changes, message
):
    copy = shutil.copytree(parent, tmp_path / "parent")
    (copy / "checkpoints/task_002.pt").unlink()
    with pytest.raises(ConfigurationError, match=message):
        branch_experiment(copy, task, tmp_path / "branch", QUIET, changes=changes)
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "checkpoints/task_001.pt", "buffer.zarr/classes/000001/0"]
)
def test_a_damaged_parent_is_refused_and_leaves_no_run(parent, tmp_path, name):
    copy = shutil.copytree(parent, tmp_path / "parent")
    if name == "metrics.jsonl":
        (copy / name).write_bytes((copy / name).read_bytes().replace(b"0", b"1", 1))
    else:
        alter(copy / name)
    with pytest.raises(IIRCError, match=r"changed since|damaged|cannot read"):
        branch_experiment(copy, TASK, tmp_path / "branch", QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]


def test_a_branch_is_neither_repeated_nor_restarted_as_a_run_of_its_own(
    parent, tmp_path, monkeypatch
):
    branch = tmp_path / "branch"
    monkeypatch.setattr(Training, "run", lambda *args: None)
    branch_experiment(parent, 0, branch, QUIET)
    with pytest.raises(ConfigurationError, match=rf"repeat it with --from {parent} --from-task 0"):
        repeat_experiment(branch, tmp_path / "again", QUIET)
    with pytest.raises(ConfigurationError, match=r"holds a branch of .* after task 0, not of"):
        branch_experiment(parent, 1, branch, QUIET)
    with pytest.raises(ConfigurationError, match="holds a run already"):
        branch_experiment(branch, 0, parent, QUIET)
    RunDirectory(branch).checkpoint.unlink()
    with pytest.raises(CheckpointError, match=r"is a branch of .*missing: restore that file"):
        resume_experiment(branch, QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "a", "--output", "b"], "--from RUN and --from-task TASK belong together"),
        (["--from", "a", "--from-task", "1"], "no folder for the run: give --output"),
        (["--from", "a", "--from-task", "1", "--output", "b", "--preset", "x"], "leave out"),
        (["--from", "a", "--from-task", "1", "--resume", "b"], "leave out --output"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    result = CliRunner().invoke(app, ["train", *options])
    assert message in str(result.exception)


def test_the_command_branches(parent, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "run", lambda *args: None)
    options = ["--from", parent, "--from-task", 2, "--output", tmp_path / "b", "--lr", 0.01]
    result = CliRunner().invoke(app, ["train", *map(str, options)])
    assert result.exception is None, result.output
    origin = json.loads((tmp_path / "b/record.json").read_text())["parent"]
    assert origin["settings"] == {"lr": {"before": 0.1, "after": 0.01}}
