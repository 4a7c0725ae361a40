"""Files that release 0.1.0 wrote are read: shards, a benchmark, a run stopped in its second task.

``tests/kept/kept.tar.xz`` holds them; ``unbroken_metrics.jsonl`` is what the run wrote unstopped.
"""

import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import iirc_train
from iirc_data.errors import ConfigurationError
from iirc_data.shards import ShardStore
from iirc_data.shards.verify import verify
from iirc_train.buffer.store import BufferStore
from iirc_train.cli.app import app
from iirc_train.run.record import is_finished, read_record
from iirc_train.training.launch import resume_experiment

KEPT = Path(__file__).parent / "kept"
DIGEST = "7bf1d9023c5c13f1db4f63d80f48129b323c32deac031b2a287fdb840400067e"


@pytest.fixture
def kept(tmp_path) -> Path:
    with tarfile.open(KEPT / "kept.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shards_keep_their_digest(kept):
    assert ShardStore.open(kept / "shards").digest == DIGEST
    assert not verify(kept / "shards").problems


def test_a_run_resumes_to_its_end(kept, monkeypatch):
    run = kept / "run"
    monkeypatch.chdir(run)  # the run's data is "shards", which a reader of the README has too
    before = (run / "metrics.jsonl").read_bytes()
    assert not is_finished(run)
    assert len(before.splitlines()) == 7  # task 0, and the first epoch of task 1
    with pytest.raises(ConfigurationError, match="data is not at"):
        resume_experiment(run)
    options = {"data": str(kept / "shards"), "benchmark": str(kept / "benchmark.json")}
    results = iirc_train.resume(run, progress=False, **options)
    assert results.all_seen.shape == (3,)
    assert (run / "metrics.jsonl").read_bytes().startswith(before)
    after = [line for line in lines(run / "metrics.jsonl") if line["kind"] != "task"]  # newer
    unbroken = lines(KEPT / "unbroken_metrics.jsonl")
    places = ("kind", "split", "task", "epoch", "after_task", "n_samples")
    assert [[line.get(key) for key in places] for line in after] == [
        [line.get(key) for key in places] for line in unbroken
    ]
    assert after[7]["loss"] == pytest.approx(unbroken[7]["loss"], rel=1e-3)
    assert is_finished(run)
    assert [s["position"]["task_id"] for s in read_record(run)["sessions"]] == [0, 1]
    store = BufferStore(run / "buffer.zarr")
    assert set(store.counts(max(store.generations())).values()) == {2}


def test_the_report_reads_a_stopped_run(kept):
    result = CliRunner().invoke(
        app, ["report", str(kept / "run"), "--output", str(kept / "report")]
    )
    assert result.exit_code == 0, result.output
    page = (kept / "report" / "report.html").read_text(encoding="utf-8")
    assert "Not finished" in page and DIGEST in page
