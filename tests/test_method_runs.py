"""The runs behind a table: what the program says of them, failures, and Ctrl-C."""

import os
import signal
import threading
from pathlib import Path

import pytest

from benchmarks import method_runs
from benchmarks.method_runs import NamedRun, train_all
from iirc_data.benchmarks import load_benchmark
from iirc_data.errors import BenchmarkError, ConfigurationError, ShardError
from tests.test_methods_on_cifar100 import write_scores

LINE = "iirc train --method finetune --benchmark iirc_cifar10 --data shards --output out"
STARTS = "run {} of {} starts; it prints to {}"


@pytest.fixture(autouse=True)
def tiny_shards_serve_cifar10(monkeypatch, tiny_benchmark):
    monkeypatch.setattr(method_runs, "load_benchmark", lambda name: tiny_benchmark)


def named(name: str, runs: Path) -> NamedRun:
    return NamedRun(name, LINE, runs / name / "order_0")


def stand_in(folder: Path, script: str) -> str:
    """Write a program that stands in for the Python interpreter of a run."""
    path = folder / "stand-in"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_line_says_when_each_run_starts_where_it_prints_and_how_it_ends(
    tmp_path, monkeypatch, capsys, tiny_store
):
    runs = [named(name, tmp_path / "runs") for name in ("old", "new", "failing")]
    for run in runs[:2]:
        write_scores(run.folder, LINE, [0.5, 0.25])
    record = runs[1].folder / "record.json"
    finished = record.read_bytes()
    record.unlink()  # the run starts again, and the stand-in finishes it
    script = f"mv {tmp_path}/finished {record} 2> {os.devnull} || {{ echo no space; exit 3; }}"
    (tmp_path / "finished").write_bytes(finished)
    monkeypatch.setattr("sys.executable", stand_in(tmp_path, script))
    with pytest.raises(ConfigurationError, match="1 runs failed"):
        train_all(runs, tmp_path / "runs", tiny_store.root)
    lines = capsys.readouterr().err.splitlines()
    log = runs[2].folder.with_name("order_0.log")
    assert lines == [
        "old: run 1 of 3 was finished before: [0.5  0.25]",
        "new: " + STARTS.format(2, 3, runs[1].folder.with_name("order_0.log")),
        "new: run 2 of 3 is finished: [0.5  0.25]",
        "failing: " + STARTS.format(3, 3, log),
        f"failing: {runs[2].folder}: exit status 3: no space (see {log})",
    ]


def test_ctrl_c_stops_the_runs_and_says_how_to_resume(
    request, tmp_path, monkeypatch, capsys, tiny_store
):
    started = tmp_path / "started"
    script = f"trap 'echo stopped; exit 143' TERM; sleep 60 > {os.devnull} & touch {started}; wait"
    monkeypatch.setattr("sys.executable", stand_in(tmp_path, script))
    runs = [named(name, tmp_path / "runs") for name in ("first", "second")]

    def interrupt() -> None:
        while not started.exists():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    # a background job of a shell starts with Ctrl-C ignored
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, heard))
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        train_all(runs, tmp_path / "runs", tiny_store.root)
    assert ended.value.code == 128 + signal.SIGINT
    log = runs[0].folder.with_name("order_0.log")
    assert capsys.readouterr().err.splitlines() == [
        "first: " + STARTS.format(1, 2, log),
        "stopping after the current steps; Ctrl-C again stops at once",
        "interrupted: run the same command again to resume",
    ]
    assert log.read_text().endswith("stopped\n") and not runs[1].folder.parent.exists()


def test_a_run_that_was_interrupted_interrupts_all(tmp_path, monkeypatch, capsys, tiny_store):
    monkeypatch.setattr("sys.executable", stand_in(tmp_path, "exit 130"))
    runs = [named(name, tmp_path / "runs") for name in ("first", "second")]
    with pytest.raises(SystemExit) as ended:
        train_all(runs, tmp_path / "runs", tiny_store.root)
    assert ended.value.code == 128 + signal.SIGINT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "interrupted: run the same command again to resume"
    assert not runs[1].folder.parent.exists()


def test_a_wrong_shard_folder_starts_no_run(tmp_path):
    run = named("first", tmp_path / "runs")
    with pytest.raises(ShardError, match="is not a shard folder"):
        train_all([run], tmp_path / "runs", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_shards_of_another_dataset_start_no_run(tmp_path, monkeypatch, tiny_store):
    monkeypatch.setattr(method_runs, "load_benchmark", load_benchmark)
    run = named("first", tmp_path / "runs")
    with pytest.raises(BenchmarkError, match="'iirc_cifar10' needs 7 classes that dataset"):
        train_all([run], tmp_path / "runs", tiny_store.root)
    assert not (tmp_path / "runs").exists()
