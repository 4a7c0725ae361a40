"""Runs that branch from the state of another run after one of its tasks."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iirc_data.errors import CheckpointError, ConfigurationError, IIRCError
from iirc_train.cli.app import app
from iirc_train.config import ExperimentConfig
from iirc_train.report.page import write_report
from iirc_train.report.runs import find_runs
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.run.record import is_finished, read_record
from iirc_train.training.branch import branch_experiment
from iirc_train.training.launch import repeat_experiment, resume_experiment, run_experiment
from iirc_train.training.trainer import Training
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
    assert origin["settings"]["lr"] == {"before": 0.1, "after": 0.02}
    assert sorted(origin["settings"]) == ["batch_size", "image_preset", "lr", "seed"]
    assert record["sessions"][0]["position"] == {"task_id": TASK + 1, "epochs": 0}
    assert is_finished(branch)
    write_report(found := find_runs([parent, branch]), tmp_path / "report")
    (groups,) = found.by_benchmark().values()
    assert [group.name for group in groups] == ["icarl_cnn", "icarl_cnn, branch after task 1"]
    page = (tmp_path / "report/report.html").read_text()
    assert "parent.run" in page and str(parent) in page


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (TASK, {"method": "finetune"}, "a branch cannot change method,"),
        (TASK, {"total_n_mems": "30"}, "a branch cannot change total_n_mems,"),
        (TASK, {"schedule": "1"}, "a branch cannot change schedule,"),
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
