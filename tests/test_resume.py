"""Runs that are interrupted and resumed end bitwise equal to uninterrupted ones."""

import errno
import json
import os
import random
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS, get_method
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.runtime.random_state import random_state, set_random_state
from iirc_train.training import trainer
from iirc_train.training.components import Experiment
from iirc_train.training.launch import resume_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.ce_methods import config_for, write_three_levels
from tests.memories import assert_equal_memories

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def settings(tiny_settings, tiny_benchmark) -> dict[str, object]:
    """Settings of runs in a taxonomy of three levels."""
    folder = Path(tiny_settings["benchmark"]).parent
    return tiny_settings | {
        "benchmark": str(write_three_levels(tiny_benchmark, folder / "tiny_deep.json")),
        "epochs_per_task": 2,
        "threads": 1,
        "decoder": "pillow",
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


def contents(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def assert_equal_runs(run: Path, expected: Path) -> None:
    assert (run / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    confusions = [contents(path / "confusion") for path in (run, expected)]
    assert confusions[0] == confusions[1] != {}
    states = [tensors(load_checkpoint(r / "checkpoints/last.pt")) for r in (run, expected)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if name != "/sizes/timings.jsonl" and name != "/experiment/buffer/generation":
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, states[1][name]), name
            else:
                assert value == states[1][name], name
    assert_equal_memories(run / "buffer.zarr", expected / "buffer.zarr")


def break_off_at_save(monkeypatch, number: int) -> None:
    """Interrupt a run one epoch after its checkpoint number ``number``."""
    saves = []
    save, step = Training._save, Training._learn_epoch

    def counted_save(self, *args):
        save(self, *args)
        saves.append(1)

    def last_step(self, *args, **kwargs):
        step(self, *args, **kwargs)
        if len(saves) >= number:
            raise BrokenOffError

    monkeypatch.setattr(Training, "_save", counted_save)
    monkeypatch.setattr(Training, "_learn_epoch", last_step)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_like_an_unbroken_one(settings, tmp_path, monkeypatch, method):
    resume_twice(config_for(method, settings), tmp_path, monkeypatch)


def test_a_resumed_run_ends_with_the_same_hierarchy_and_thresholds(settings, tmp_path, monkeypatch):
    changes = {"hcv": "both", "hcv_threshold": 0.0, "hcv_superclass": "deepest"}
    changes |= {"calibrate_thresholds": True}
    run = resume_twice(config_for("icarl_cnn", settings, **changes), tmp_path, monkeypatch)
    last = [r for r in read_metrics(run) if r["kind"] == "task"][-1]
    assert last["superclasses"]  # or nothing was discovered
    state = load_checkpoint(run / "checkpoints" / "last.pt")["experiment"]["method"]["modules"]
    assert state["label_thresholds"].any()  # or none was fitted


def resume_twice(config: ExperimentConfig, tmp_path: Path, monkeypatch) -> Path:
    """Break a run off twice and resume it, compare it with an unbroken one, and return it."""
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
    return run


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory) -> Path:
    config = ExperimentConfig.parse(
        settings | {"method": "finetune", "epochs_per_task": 1, "save_each_task_model": True}
    )
    return run_experiment(config, tmp_path_factory.mktemp("finished") / "run", QUIET)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def test_a_finished_run_is_left_as_it_is(finished):
    before = contents(finished)
    resume_experiment(finished, QUIET)
    assert contents(finished) == before


def test_the_checkpoint_of_every_task_is_kept_when_asked_for(finished):
    folder = finished / "checkpoints"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["last.pt", *(f"task_{task:03d}.pt" for task in range(4))]
    assert load_checkpoint(folder / "task_001.pt")["position"] == (2, 0)
    assert (folder / "task_003.pt").read_bytes() == (folder / "last.pt").read_bytes()


def test_a_kill_between_the_two_checkpoints_of_a_task_loses_neither(
    finished, tmp_path, monkeypatch
):
    written = []

    def save(path, state):
        if len(written) == 3:  # those of the two epochs of the first task, and one of its end
            raise BrokenOffError
        save_checkpoint(path, state)
        written.append(path.name)

    run = tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        patched.setattr(trainer, "save_checkpoint", save)
        run_experiment(RunDirectory.open(finished)[1], run, QUIET)
    resume_experiment(run, QUIET)
    names = ["last.pt", *(f"task_{task:03d}.pt" for task in range(4))]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == names
    assert_equal_runs(run, finished)


@pytest.mark.parametrize(("interval", "expected"), [(0, []), (2, [2, 4]), (3, [3])])
def test_checkpoints_are_written_as_often_as_asked(settings, tmp_path, interval, expected):
    config = ExperimentConfig.parse(
        settings | {"method": "finetune", "checkpoint_interval": interval}
    )
    positions = []

    class Counted(Training):
        def _save(self, position):
            positions.append(position)

    run = RunDirectory.create(tmp_path / "run", config)
    Counted(Experiment(config), run).learn_task(TrainingProgress(QUIET, "run", 4))
    assert positions == [(0, epochs, 0) for epochs in expected]


def test_a_run_without_a_checkpoint_begins_anew(copied, finished):
    (copied / "checkpoints" / "last.pt").unlink()
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text("".join(lines[:3]))
    resume_experiment(copied, QUIET)
    assert_equal_runs(copied, finished)


def test_only_restoring_changes_a_runs_folder(copied):
    (copied / "checkpoints" / "last.pt").unlink()
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text("".join(lines[:3]))
    before = contents(copied)
    run, config = RunDirectory.open(copied)
    with Experiment(config) as experiment:
        training = Training(experiment, run)
        assert contents(copied) == before
        training.restore()
    assert (copied / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_closes_its_decoder(settings, tmp_path, monkeypatch, fails):
    closed, close = [], Experiment.close
    monkeypatch.setattr(Experiment, "close", lambda self: (closed.append(self), close(self)))
    config = ExperimentConfig.parse(settings | {"method": "finetune", "samples_per_class": 3})
    with monkeypatch.context() as patched:
        if fails:
            break_off_at_save(patched, 1)
        with pytest.raises(BrokenOffError) if fails else nullcontext():
            run_experiment(config, tmp_path / "run", QUIET)
    (experiment,) = closed
    with pytest.raises(RuntimeError, match="shutdown"):
        next(iter(experiment.evaluation_loader(experiment.view("test", 0))))


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds no run: it has no config\.yaml"):
        resume_experiment(tmp_path, QUIET)


def test_checkpoints_without_a_configuration_are_not_overwritten(settings, copied):
    (copied / "config.yaml").unlink()
    config = ExperimentConfig.parse(settings | {"method": "finetune"})
    with pytest.raises(ConfigurationError, match="holds a run already"):
        run_experiment(config, copied, QUIET)


@pytest.mark.parametrize("size", [0, 10, 5000, -1])
def test_a_damaged_checkpoint_is_named_and_nothing_is_changed(copied, size):
    path = copied / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:size])
    before = contents(copied)
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        resume_experiment(copied, QUIET)
    assert contents(copied) == before


def test_a_checkpoint_builds_nothing_but_tensors_and_values(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"format": "iirc-checkpoint", "version": 1, "x": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="which a checkpoint cannot contain"):
        save_checkpoint(tmp_path / "y.pt", {"x": Path()})
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"format": "other"}, "not a checkpoint of a run"),
        ({"format": "iirc-checkpoint", "version": 2}, "checkpoint version 2, expected 1"),
    ],
)
def test_other_files_are_no_checkpoint(tmp_path, state, message):
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "x.pt")


def test_a_checkpoint_of_other_data_is_refused(copied):
    path = copied / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    state["experiment"]["dataset"] = "0" * 64
    save_checkpoint(path, state)
    with pytest.raises(CheckpointError, match=r"started with another dataset \(000000000000"):
        resume_experiment(copied, QUIET)


def test_metrics_that_lack_lines_are_noticed(copied):
    path = copied / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigurationError, match="they belong to different runs"):
        resume_experiment(copied, QUIET)


def test_altered_metrics_are_noticed(copied):
    path = copied / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="has changed since the checkpoint"):
        resume_experiment(copied, QUIET)
    assert path.read_bytes() == before


def test_a_disk_that_is_full_leaves_the_checkpoint_before(copied, monkeypatch):
    path = copied / "checkpoints" / "last.pt"
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*last\.pt: No space left"):
        save_checkpoint(path, {"x": 1})
    assert path.read_bytes() == before
    assert not list(copied.rglob("*.partial"))


def test_a_state_is_loaded_into_a_new_method_only(settings):
    experiment = Experiment(ExperimentConfig.parse(settings | {"method": "lucir"}))
    experiment.method.prepare_model_for_new_task()
    state = experiment.method.method_state_dict()
    with pytest.raises(CheckpointError, match="load a state into a new method"):
        experiment.method.load_method_state_dict(state)
    other = Experiment(ExperimentConfig.parse(settings | {"method": "lucir", "n_layers": 20}))
    with pytest.raises(CheckpointError, match="the state does not fit"):
        other.method.load_method_state_dict(state)


def test_variables_that_a_method_names_are_part_of_its_state(settings):
    class Counting(get_method("finetune").model):
        method_variables = ("n_steps",)
        n_steps = 0

    methods = [Counting([2], {"a": 0, "b": 1}, {"n_layers": 8}) for _ in range(2)]
    methods[0].n_steps = 7
    methods[1].load_method_state_dict(methods[0].method_state_dict())
    assert methods[1].n_steps == 7


def test_random_states_are_taken_up_again():
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    state = random_state()
    first = draw()
    set_random_state(state)
    assert draw() == first


def test_a_run_is_not_gone_on_with_under_other_settings(copied):
    path = copied / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    with pytest.raises(CheckpointError, match=r"another configuration \(lr: 0\.1, now lr: 0\.2\)"):
        resume_experiment(copied, QUIET)


def test_a_run_is_not_gone_on_with_under_another_benchmark(copied, tmp_path, tiny_benchmark):
    values = json.loads(tiny_benchmark.model_dump_json())
    values["schedules"][0] = values["schedules"][0][::-1]
    (tmp_path / "edited.json").write_text(json.dumps(values))
    config = yaml.safe_load((copied / "config.yaml").read_text())
    (copied / "config.yaml").write_text(
        yaml.safe_dump(config | {"benchmark": str(tmp_path / "edited.json")})
    )
    before = contents(copied)
    with (
        pytest.raises(CheckpointError, match="started with another benchmark"),
        pytest.warns(UserWarning, match="before their superclass"),
    ):
        resume_experiment(copied, QUIET)
    assert contents(copied) == before


def test_results_without_a_checkpoint_are_not_erased(copied):
    (copied / "checkpoints" / "last.pt").unlink()
    before = contents(copied)
    with pytest.raises(CheckpointError, match=r"holds results but no last\.pt"):
        resume_experiment(copied, QUIET)
    assert contents(copied) == before


def test_a_saved_model_is_no_checkpoint_of_a_run(copied):
    save_checkpoint(copied / "checkpoints" / "last.pt", {"model": {}})
    with pytest.raises(CheckpointError, match=r"last\.pt is not a checkpoint of a run"):
        resume_experiment(copied, QUIET)


def test_lost_times_do_not_keep_a_run_from_going_on(copied):
    (copied / "timings.jsonl").unlink()
    resume_experiment(copied, QUIET)


def test_an_altered_bit_in_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"position": (1, 2), "weight": torch.arange(100.0)})
    whole = path.read_bytes()
    for part in (b"position", torch.arange(50.0, 60.0).numpy().tobytes()):
        altered = bytearray(whole)
        altered[whole.index(part) + 3] ^= 1
        path.write_bytes(altered)
        with pytest.raises(CheckpointError, match="does not match its checksum"):
            load_checkpoint(path)
