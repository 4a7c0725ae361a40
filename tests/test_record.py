"""The record of a run, and runs repeated from it."""

import importlib.metadata
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.run.directory import RunDirectory
from iirc_train.run.record import is_finished, read_record
from iirc_train.training.launch import repeat_experiment, resume_experiment, run_experiment
from tests.test_resume import QUIET, assert_equal_runs


@pytest.fixture(scope="module")
def run(tiny_settings, tmp_path_factory) -> Path:
    settings = tiny_settings | {"method": "finetune", "threads": 1, "decoder": "pillow"}
    output = tmp_path_factory.mktemp("runs") / "run"
    config, console = ExperimentConfig.parse(settings), Console(file=StringIO())
    run_experiment(config, output, console, preset="of-this-test")
    assert "preset: of-this-test\n" in console.file.getvalue()
    return output


@pytest.fixture
def changed(run, tmp_path):
    """Return a function that copies the run with parts of its record replaced."""

    def change(**parts: object) -> Path:
        copy = tmp_path / "changed"
        copy.mkdir()
        (copy / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
        record = read_record(run) | parts
        (copy / "record.json").write_text(json.dumps(record))
        return copy

    return change


def test_a_run_records_its_data_versions_and_machine(run, tiny_store):
    record = read_record(run)
    (session,) = record["sessions"]
    assert record["dataset"]["digest"] == tiny_store.digest
    assert record["preset"] == "of-this-test"
    assert set(record["task_views"]) == {"train", "intask_valid", "posttask_valid", "test"}
    assert session["versions"]["torch"] == importlib.metadata.version("torch")
    assert session["machine"]["cores"] >= 1
    assert session["position"] == {"task_id": 0, "epochs": 0}
    assert session["started"] <= session["finished"]
    *_, last_epoch = map(json.loads, (run / "timings.jsonl").read_text().splitlines())
    assert session["peak_memory_bytes"] >= last_epoch["peak_memory_bytes"]
    assert is_finished(run)


def unfinish(run: Path) -> None:
    """Leave a run as if it had been interrupted right before its end."""
    record = read_record(run)
    for session in record["sessions"]:
        session.pop("finished", None)
    (run / "record.json").write_text(json.dumps(record))


def test_going_on_adds_a_session_unless_nothing_is_left_to_do(run):
    resume_experiment(run, QUIET)
    assert len(read_record(run)["sessions"]) == 1
    unfinish(run)
    resume_experiment(run, QUIET)
    sessions = read_record(run)["sessions"]
    assert [session["position"]["task_id"] for session in sessions] == [0, 4]
    assert read_record(run)["preset"] == "of-this-test"
    assert is_finished(run)


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/opt/bin/iirc", "iirc train --data 'my shards'"),
        ("/opt/iirc_train/__main__.py", "python -m iirc_train train --data 'my shards'"),
    ],
)
def test_the_command_is_recorded_as_it_can_be_typed(run, monkeypatch, program, command):
    monkeypatch.setattr(sys, "argv", [program, "train", "--data", "my shards"])
    unfinish(run)
    resume_experiment(run, QUIET)
    assert read_record(run)["sessions"][-1]["command"] == command


def test_a_repeated_run_has_the_same_bits(run, tmp_path):
    again = repeat_experiment(run, tmp_path / "again", QUIET)
    assert_equal_runs(again, run)


def test_a_run_is_not_repeated_on_other_data(changed, tmp_path):
    other = changed(dataset={"name": "tiny", "digest": "0" * 64})
    with pytest.raises(ConfigurationError, match="the run was made with dataset"):
        repeat_experiment(other, tmp_path / "again", QUIET)
    RunDirectory.check_unused(tmp_path / "again")


def test_a_run_is_not_repeated_on_other_task_views(run, changed, tmp_path):
    views = read_record(run)["task_views"]
    other = changed(task_views=views | {"train": views["train"][::-1]})
    with pytest.raises(ConfigurationError, match="saw other train samples"):
        repeat_experiment(other, tmp_path / "again", QUIET)


def test_other_versions_are_told(run, changed, tmp_path):
    sessions = read_record(run)["sessions"]
    sessions[0]["versions"]["torch"] = "1.0"
    console = Console(record=True, width=200, quiet=False)
    repeat_experiment(changed(sessions=sessions), tmp_path / "again", console)
    assert f"torch 1.0 → {importlib.metadata.version('torch')}" in console.export_text()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"sessions": []}', '{"sessions": [{}]}'])
def test_a_damaged_record_is_one_clear_error(run, tmp_path, text):
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"record\.json is not readable"):
        repeat_experiment(tmp_path, tmp_path / "again", QUIET)
