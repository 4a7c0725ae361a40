"""Runs that are broken off and gone on with end as if nothing had happened, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_train.buffer.store import BufferStore
from iirc_train.checkpoint import (
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from iirc_train.config import ExperimentConfig
from iirc_train.engine import Experiment, resume_experiment, run_experiment
from iirc_train.methods import METHODS

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tiny_benchmark, tiny_store, tmp_path_factory) -> dict[str, object]:
    path = tmp_path_factory.mktemp("benchmark") / "tiny.json"
    path.write_text(tiny_benchmark.model_dump_json())
    return {
        "benchmark": str(path),
        "data": str(tiny_store.root),
        "n_layers": 8,
        "n_memories_per_class": 3,
        "epochs_per_task": 2,
        "batch_size": 16,
        "lr": 0.1,
        "device": "cpu",
        "threads": 1,
        "engine": "torch",
        "use_best_model": True,
        "reduce_lr_on_plateau": True,
    }


class BrokenOffError(Exception):
    pass


def tensors(value: object, name: str = "") -> dict[str, object]:
    """Flatten a checkpoint's state."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {name: value}
    return {k: v for key, part in parts for k, v in tensors(part, f"{name}/{key}").items()}


def assert_equal_runs(run: Path, expected: Path) -> None:
    assert (run / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    states = [tensors(load_checkpoint(r / "checkpoints/last.pt", CPU)) for r in (run, expected)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if name != "/sizes/timings.jsonl" and name != "/buffer/generation":
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, states[1][name]), name
            else:
                assert value == states[1][name], name
    stores = [BufferStore(path / "buffer.zarr") for path in (run, expected)]
    counts = [store.counts(max(store.generations())) for store in stores]
    assert counts[0] == counts[1]
    for number in range(len(counts[0])):
        ours, theirs = (vars(store.read_class(number)) for store in stores)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def break_off_at_save(monkeypatch, number: int) -> None:
    """Break off a run right after a checkpoint, and much of the epoch that follows."""
    saves = []
    save, step = Experiment._save, Experiment._learn_epoch

    def counted_save(self, *args):
        save(self, *args)
        saves.append(1)

    def last_step(self, *args):
        step(self, *args)
        if len(saves) >= number:
            raise BrokenOffError

    monkeypatch.setattr(Experiment, "_save", counted_save)
    monkeypatch.setattr(Experiment, "_learn_epoch", last_step)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_like_an_unbroken_one(settings, tmp_path, monkeypatch, method):
    config = ExperimentConfig.parse(settings | {"method": method})
    expected = run_experiment(config, tmp_path / "unbroken", QUIET)
    run = tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 6)  # amid the second task
        run_experiment(config, run, QUIET)
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 4)  # at the start of the fourth
        resume_experiment(run, QUIET)
    torch.manual_seed(5)
    resume_experiment(run, QUIET)
    assert_equal_runs(run, expected)
