"""Two processes that share every batch train the same model as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iirc_data.errors import ConfigurationError
from iirc_train.buffer.store import BufferStore
from iirc_train.config import ExperimentConfig
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.directory import read_metrics
from iirc_train.training.components import Experiment
from tests.two_ranks import ALL_METHODS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tiny_settings, tmp_path_factory) -> dict[int, Path]:
    """Runs of all methods by one process, and by two."""
    root = tmp_path_factory.mktemp("ranks")
    settings = tiny_settings | {"decoder": "pillow", "threads": 1, "lr": 0.05, "epochs_per_task": 2}
    (root / "settings.json").write_text(json.dumps(settings))
    launched = []
    for n in (1, 2):
        (root / str(n)).mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
        work = ["-m", "tests.two_ranks", root / "settings.json", root / str(n)]
        launched.append(
            subprocess.Popen(
                [sys.executable, *launcher, *work],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    assert [process.wait(timeout=300) for process in launched] == [0, 0]
    return {n: root / str(n) for n in (1, 2)}


@pytest.mark.parametrize("method", ALL_METHODS)
def test_two_ranks_agree_with_one(runs, method):
    alone, shared = (read_metrics(runs[n] / method) for n in (1, 2))
    assert len(alone) == len(shared) and "top1" in alone[-1]
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)

    gradients = [torch.load(runs[n] / f"{method}.pt", weights_only=True) for n in (1, 2)]
    assert torch.equal(gradients[0]["sizes"], gradients[1]["sizes"])
    torch.testing.assert_close(gradients[1]["values"], gradients[0]["values"], atol=1e-4, rtol=1e-4)

    states = [load_checkpoint(runs[n] / method / "checkpoints/last.pt") for n in (1, 2)]
    for name, value in states[0]["experiment"]["method"]["modules"].items():
        torch.testing.assert_close(
            states[1]["experiment"]["method"]["modules"][name], value, atol=1e-4, rtol=1e-4
        )

    confusions = [runs[n] / method / "confusion/after_task_003.npz" for n in (1, 2)]
    assert confusions[0].read_bytes() == confusions[1].read_bytes()

    stores = [BufferStore(runs[n] / method / "buffer.zarr") for n in (1, 2)]
    counts = [store.counts(max(store.generations())) for store in stores]
    assert counts[0] == counts[1] != {}
    for number, name in enumerate(counts[0]):
        memories = [store.read_class(number, name) for store in stores]
        assert memories[0].data.tobytes() == memories[1].data.tobytes()


def test_the_command_runs_under_torchrun_and_speaks_once(tiny_settings, tmp_path):
    settings = tiny_settings | {"method": "icarl", "threads": 1, "batch_size": 15}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["-m", "iirc_train", "train", f"--output={tmp_path / 'run'}", *options]
    launched = subprocess.run(
        [*launcher, "--nproc-per-node", "3", *command],  # a task has 2 validation images
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("after task ┃") == 1
    records = [r for r in read_metrics(tmp_path / "run") if r["kind"] == "evaluation"]
    assert {r["n_samples"] for r in records if (r["split"], r["task"]) == ("test", "all")} == {
        25,
        28,
    }


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, tiny_settings):
    monkeypatch.setattr("iirc_train.training.components.world_size", lambda: 3)
    with pytest.raises(
        ConfigurationError, match="16 is not a multiple of the number of processes, 3"
    ):
        Experiment(ExperimentConfig.parse(tiny_settings | {"method": "finetune"}))
