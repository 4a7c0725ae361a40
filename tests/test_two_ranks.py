"""Two processes that share every batch train the same model as one."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.models.networks import get_network
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.directory import read_metrics
from iirc_train.run.record import read_record
from iirc_train.runtime.distributed import training_reads_buffers
from iirc_train.runtime.process_group import of_this_attempt
from iirc_train.training import launch
from iirc_train.training.components import Experiment
from tests.killed_rank import KILLED_IN_TASK
from tests.memories import assert_equal_memories, stored_memories
from tests.test_several_datasets import CONTENT, places  # noqa: F401  # a fixture
from tests.two_ranks import ALL_METHODS, SEVERAL_DATASETS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {"decoder": "pillow", "threads": 1, "lr": 0.05, "epochs_per_task": 2}


@pytest.fixture(scope="module")
def runs(settings, places, tmp_path_factory) -> dict[int, Path]:  # noqa: F811
    """Runs of all methods, and one on several datasets, by one process and by two."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "both.json").write_text(json.dumps(CONTENT))
    several = {"benchmark": str(root / "both.json"), "data": places, "method": "icarl"}
    # no epoch leaves one sample, which cannot be shared
    several |= {"batch_size": 10, "n_memories_per_class": 4}
    (root / "settings.json").write_text(json.dumps([settings, settings | several]))
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
    assert [process.wait(timeout=900) for process in launched] == [0, 0]
    return {n: root / str(n) for n in (1, 2)}


@pytest.mark.parametrize("run", [*ALL_METHODS, SEVERAL_DATASETS])
def test_two_ranks_agree_with_one(runs, run):
    alone, shared = (read_metrics(runs[n] / run) for n in (1, 2))
    assert len(alone) == len(shared) and "top1" in alone[-2]
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)

    gradients = [torch.load(runs[n] / f"{run}.pt", weights_only=True) for n in (1, 2)]
    assert torch.equal(gradients[0]["sizes"], gradients[1]["sizes"])
    torch.testing.assert_close(gradients[1]["values"], gradients[0]["values"], atol=1e-4, rtol=1e-4)

    states = [load_checkpoint(runs[n] / run / "checkpoints/last.pt") for n in (1, 2)]
    for name, value in states[0]["experiment"]["method"]["modules"].items():
        torch.testing.assert_close(
            states[1]["experiment"]["method"]["modules"][name], value, atol=1e-4, rtol=1e-4
        )

    confusions = [max((runs[n] / run / "confusion").glob("after_task_*.npz")) for n in (1, 2)]
    assert confusions[0].read_bytes() == confusions[1].read_bytes()

    memories = [runs[n] / run / "buffer.zarr" for n in (1, 2)]
    assert stored_memories(memories[0])[0] != {}
    assert_equal_memories(memories[1], memories[0], tolerance=1e-4)


def test_buffers_that_are_synchronised_once_per_epoch_are_those_of_every_step(runs):
    before, after = torch.load(runs[2] / "batch_norm.pt", weights_only=True).unbind(1)
    assert not torch.equal(before[:, 0], before[:, 1])  # else there was nothing to synchronise
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1], before[:, 0])

    once, every_step = runs[2] / "batch_norm", runs[2] / "broadcast"
    assert (once / "metrics.jsonl").read_bytes() == (every_step / "metrics.jsonl").read_bytes()
    states = [load_checkpoint(run / "checkpoints/last.pt") for run in (once, every_step)]
    modules = [state["experiment"]["method"]["modules"] for state in states]
    assert modules[0].keys() == modules[1].keys()
    assert all(torch.equal(modules[1][name], value) for name, value in modules[0].items())


def test_a_rank_killed_in_mid_epoch_restarts_and_the_run_ends_like_an_unbroken_one(
    settings, tmp_path
):
    settings = settings | {"method": "icarl", "batch_size": 15}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    launched = subprocess.run(
        # three, because a task has 2 validation images
        [*launcher, "--nproc-per-node=3", "-m", "tests.killed_rank", tmp_path, *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert launched.returncode == 0, launched.stderr
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    assert launched.stdout.count(f"resuming {run} from task {KILLED_IN_TASK}, epoch 1\n") == 1
    assert launched.stdout.count("on the test split") == 2  # one table for each run
    assert "lost the connection to another process of the run" in launched.stderr
    assert "Traceback" not in launched.stderr
    assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    assert ["finished" in session for session in read_record(run)["sessions"]] == [False, True]
    records = [r for r in read_metrics(run) if r["kind"] == "evaluation"]
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


@pytest.mark.parametrize(("comparison", "what"), [(1, "data"), (2, "settings"), (3, "weights")])
def test_a_process_with_other_data_settings_or_weights_is_refused(
    monkeypatch, settings, tmp_path, comparison, what
):
    calls = count(1)

    def of_first_process(number: int, device: torch.device) -> int:
        assert number.bit_length() < 64
        return number + (next(calls) == comparison)

    monkeypatch.setattr(launch, "of_first_process", of_first_process)
    with pytest.raises(ConfigurationError, match=f"has other {what} than the first process"):
        launch.run_experiment(
            ExperimentConfig.parse(settings | {"method": "finetune"}), tmp_path / "run"
        )
    assert not (tmp_path / "run/config.yaml").exists()


def test_processes_of_a_restarted_run_do_not_meet_those_of_an_earlier_attempt():
    store = dist.HashStore()
    for attempt in range(3):
        store.set("offer/2", "of a process that has ended")
        with ThreadPoolExecutor(3) as threads:
            joined = [threads.submit(of_this_attempt, store, k, 3) for k in (1, 2, 0)]
        stores = [future.result(timeout=60) for future in joined]
        assert not any(each.check(["address"]) for each in stores)
        stores[0].set("address", str(attempt))
        assert {each.get("address") for each in stores} == {str(attempt).encode()}


class BatchNormThatReadsItsStatistics(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.running_mean.view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(2, 2), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm1d(4)), False),
        (get_network("resnet8")(num_classes=3), False),
        (get_network("resnet18")(num_classes=3), False),
        (nn.SyncBatchNorm(4), False),
        (nn.Sequential(nn.BatchNorm2d(4), BatchNormThatReadsItsStatistics(4)), True),
        (nn.utils.spectral_norm(nn.Linear(2, 2)), True),
    ],
)
def test_buffers_are_sent_at_each_step_only_where_training_may_read_them(module, expected):
    assert training_reads_buffers(module) == expected
