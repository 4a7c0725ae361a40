"""Runs that stop within an epoch and resume there, as if they had not stopped."""

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from iirc_data.errors import CheckpointError, ConfigurationError, TrainingError
from iirc_data.order import batch_bounds
from iirc_train.config import ExperimentConfig
from iirc_train.config.intervals import Interval
from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.finetune import Model
from iirc_train.metrics import METRICS, Metric
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.run.record import read_record
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training import epoch
from iirc_train.training.components import Experiment
from iirc_train.training.launch import continue_experiment, resume_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.ce_methods import config_for
from tests.ranks import run_ranks
from tests.test_resume import QUIET, assert_equal_runs
from tests.two_ranks import NetworkWithoutBatchStatistics

pytestmark = pytest.mark.slow

NEVER = 0, 0
TRAINING_STEP = BaseMethod.training_step
SEEDS = range(int(os.environ.get("MID_EPOCH_SEEDS", "1")))


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {
        "network": "tests.small_network:Small",
        "n_layers": None,
        "batch_size": 8,
        "threads": 1,
        "decoder": "pillow",
        "buffer_sampling_multiplier": 1.5,
        "use_best_model": True,
        "reduce_lr_on_plateau": True,
    }


def stop_at(
    number: int, seen: dict[int, list[int]] | None = None, task_id: int | None = None
) -> Callable:
    """Return a training step that asks to stop at a step of a session; it may note samples.

    Args:
        number: Number of the step, from 1.
        seen: The samples of each task are added to it.
        task_id: Count only the steps of this task.
    """
    n_steps = 0

    def step(self, batch):
        nonlocal n_steps
        n_steps += task_id in (None, self.cur_task_id)
        if seen is not None:
            seen.setdefault(self.cur_task_id, []).extend(batch.sample_ids.tolist())
        if n_steps == number and task_id in (None, self.cur_task_id):
            signal.raise_signal(signal.SIGINT)
        return TRAINING_STEP(self, batch)

    return step


@pytest.fixture
def ask_to_stop(monkeypatch):
    """Return a function that lets the step of a number, counted over a session, get Ctrl-C."""
    return lambda number: monkeypatch.setattr(BaseMethod, "training_step", stop_at(number))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_stops_at_any_step_ends_like_an_unbroken_one(
    settings, tmp_path, ask_to_stop, method, seed
):
    """Each part keeps images resident, or decodes them in every epoch."""
    chance = random.Random(f"{method} {seed}")
    by_steps = {"lr_warmup": "7steps", "reduce_lr_on_plateau": False}
    warmup = by_steps if method == "finetune" else {}
    config = config_for(method, settings | warmup)
    expected = run_experiment(config, tmp_path / "unbroken", QUIET)
    run, positions = tmp_path / "run", []
    for longest in (2, 12, 12):
        part = config.model_copy(update={"resident": chance.random() < 0.5})
        ask_to_stop(chance.randint(1, longest))
        with suppress(KeyboardInterrupt):
            continue_experiment(part, run, QUIET)
        positions.append(load_checkpoint(run / "checkpoints/last.pt")["position"])
    assert len(positions[0]) == 3  # amid the first epoch
    ask_to_stop(0)
    torch.manual_seed(5)
    continue_experiment(config.model_copy(update={"resident": seed % 2 == 0}), run, QUIET)
    assert_equal_runs(run, expected)
    timings = [(r / "timings.jsonl").read_text().splitlines() for r in (run, expected)]
    images = [[json.loads(line)["images"] for line in lines] for lines in timings]
    assert images[0] == images[1]


@pytest.mark.parametrize(
    ("every", "expected"), [("2steps", [16, 32]), ("3 steps", [24]), ("1h", []), ("0.001s", None)]
)
def test_checkpoints_within_epochs_are_written_as_often_as_asked(
    settings, tmp_path, monkeypatch, every, expected
):
    saved = []

    def note(self, position, epoch=None):
        self._timer.saved()
        saved.append(position)
        assert (epoch is not None) == (position.samples > 0)

    config = ExperimentConfig.parse(settings | {"method": "finetune", "checkpoint_every": every})
    assert config.checkpoint_every == every.replace(" ", "")
    monkeypatch.setattr(Training, "_save", note)
    with Experiment(config) as experiment:
        n = experiment.training_loader(experiment.view("train", 0)).n_samples
        training = Training(experiment, RunDirectory.create(tmp_path / "run", config))
        training.learn_task(TrainingProgress(QUIET, "run", 4))
    in_first_epoch = [position.samples for position in saved if position[:2] == (0, 0)]
    # never before the last, partial batch
    every_step = [samples for samples in range(8, n, 8) if n - samples >= 8]
    if expected is None:
        assert in_first_epoch and set(in_first_epoch) <= set(every_step)
    else:
        assert in_first_epoch == [samples for samples in expected if samples in every_step]
    assert [position for position in saved if not position.samples] == [(0, 1, 0), (0, 2, 0)]


@pytest.mark.parametrize("wrong", ["10", "0min", "ten min", "1.5steps", "-1h", "1d", ""])
def test_an_interval_without_a_number_and_a_unit_is_refused(tiny_settings, wrong):
    with pytest.raises(
        ConfigurationError, match=rf"checkpoint_every: give a number .* 10min.*, got '{wrong}'"
    ):
        ExperimentConfig.parse(tiny_settings | {"method": "finetune", "checkpoint_every": wrong})


def test_intervals_are_read():
    texts = {"90s": 90, "1.5 h": 5400, " 10min": 600}
    assert [Interval.parse(text).seconds for text in texts] == list(texts.values())
    assert [Interval.parse(text).steps for text in ("1step", "500 steps")] == [1, 500]


def test_a_loss_that_is_no_number_is_never_saved(settings, tmp_path, monkeypatch, ask_to_stop):
    """The step is numbered within the epoch, also after a resumption."""
    config = ExperimentConfig.parse(
        settings | {"method": "finetune", "checkpoint_every": "1 step", "batch_size": 4}
    )
    run = tmp_path / "run"
    ask_to_stop(2)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, run, QUIET)
    ask_to_stop(0)
    loss, steps = Model._loss, []

    def nan_from_third(self, step):
        steps.append(1)
        return loss(self, step) * (torch.nan if len(steps) >= 3 else 1.0)

    monkeypatch.setattr(Model, "_loss", nan_from_third)
    with pytest.raises(TrainingError, match="the loss is nan from step 4 of 5 on"):
        continue_experiment(config, run, QUIET)
    state = load_checkpoint(run / "checkpoints/last.pt")
    assert state["position"] == (0, 0, 16)
    modules = state["experiment"]["method"]["modules"].values()
    assert all(value.isfinite().all() for value in modules)


def test_a_checkpoint_within_an_epoch_needs_the_metrics_that_it_was_written_with(
    settings, tmp_path, monkeypatch, ask_to_stop
):
    config = ExperimentConfig.parse(settings | {"method": "finetune"})
    ask_to_stop(2)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, tmp_path / "run", QUIET)
    own = Metric("own", torch.mean, lambda outputs: outputs.targets.float())
    monkeypatch.setitem(METRICS, "own", own)
    with pytest.raises(CheckpointError, match=r"with other metrics .*'own'.*: resume it with the"):
        resume_experiment(tmp_path / "run", QUIET)


@pytest.mark.parametrize("n_processes", [2, 3])
@pytest.mark.parametrize("n", [33, 40, 47, 64])
def test_samples_of_an_epoch_are_shown_once_by_changing_numbers_of_processes(n, n_processes):
    """A cut leaves a full batch at least, so that a small remainder never stands alone."""
    batch_size = 6

    def positions(first: int, stop: int, size: int) -> list[int]:
        bounds = [batch_bounds(n, batch_size // size, rank, size) for rank in range(size)]
        parts = [part for of_rank in bounds for part in of_rank[first // batch_size :]]
        parts = [range(*part) for part in parts if part[0] < stop]
        assert all(parts)
        return [position for part in parts for position in part]

    cuts = range(0, n - batch_size + 1, batch_size)
    for first, second in [(a, b) for a in cuts for b in cuts if a <= b]:
        shown = positions(0, first, 1) + positions(first, second, n_processes)
        assert sorted(shown + positions(second, n, 1)) == list(range(n)), (first, second)


def train_part(config: ExperimentConfig, run: Path, stop: tuple[int, int], seen: Path) -> None:
    """Go on with a run, and stop at a step of a task; note the samples of each process."""
    shown: dict[int, list[int]] = {}
    BaseMethod.training_step = stop_at(stop[1], shown, stop[0])
    BaseMethod._make_network = lambda self: NetworkWithoutBatchStatistics(sum(self.n_cla_per_tsk))
    epoch.SECTION = 1
    with suppress(KeyboardInterrupt):
        continue_experiment(config, run, QUIET)
    number = os.environ.get("RANK", "0")
    seen.with_name(f"{seen.name}_{number}.json").write_text(json.dumps(shown))


@pytest.mark.parametrize("method", ["agem", "der_plus_plus", "icarl_cnn"])
def test_a_run_that_changes_its_processes_within_epochs_shows_each_sample_once(
    settings, tmp_path, monkeypatch, method
):
    """One process, then two, then one: in the first epoch, and in that of a task with memories."""
    monkeypatch.setattr(BaseMethod, "training_step", TRAINING_STEP)
    monkeypatch.setattr(BaseMethod, "_make_network", BaseMethod._make_network)
    monkeypatch.setattr(epoch, "SECTION", epoch.SECTION)
    own = {"batch_size": 6, "network": "auto", "use_best_model": False}
    config = config_for(method, settings | own)
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    (tmp_path / "expected").mkdir()
    (tmp_path / "seen").mkdir()
    train_part(config, unbroken, NEVER, tmp_path / "expected/all")
    positions, parts = [], [(1, (0, 2)), (2, (0, 2)), (1, (2, 1)), (2, (2, 1)), (1, NEVER)]
    for number, (n, stop) in enumerate(parts):
        arguments = config, run, stop, tmp_path / f"seen/{number}"
        if n == 1:
            train_part(*arguments)
        else:
            assert run_ranks(n, train_part, *arguments) == [0] * n
        positions.append(load_checkpoint(run / "checkpoints/last.pt")["position"])
    assert [len(position) for position in positions] == [3, 3, 3, 3, 2], positions
    assert counted(tmp_path / "seen") == counted(tmp_path / "expected")
    for ours, theirs in zip(read_metrics(run), read_metrics(unbroken), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    states = [load_checkpoint(r / "checkpoints/last.pt") for r in (run, unbroken)]
    ours, theirs = (state["experiment"]["method"]["modules"] for state in states)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-4)
    processes = [session["processes"] for session in read_record(run)["sessions"]]
    assert processes == [1, 2, 1, 2, 1]


def counted(folder: Path) -> dict[str, Counter[int]]:
    """Return how often each sample was shown in each task."""
    found: dict[str, Counter[int]] = {}
    for path in folder.iterdir():
        for task, samples in json.loads(path.read_text()).items():
            found.setdefault(task, Counter()).update(samples)
    return found


END_EPOCH = Training._end_epoch


def train_in_sections(config: ExperimentConfig, run: Path, stop: tuple[int, int | None]) -> None:
    """Go on with a run, and stop at a step of a task, or soon after it; None stops at an epoch."""

    def end_epoch(training, task_id, *arguments):
        if stop == (task_id, None):
            signal.raise_signal(signal.SIGINT)
        END_EPOCH(training, task_id, *arguments)

    BaseMethod.training_step = stop_at(stop[1] or 0, task_id=stop[0])
    Training._end_epoch = end_epoch
    epoch.SECTION = 2
    with suppress(KeyboardInterrupt):
        continue_experiment(config, run, QUIET)


def test_three_processes_that_stop_within_and_between_epochs_end_like_three_that_did_not(
    settings, tmp_path
):
    config = config_for("agem", settings | {"batch_size": 6})
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    assert run_ranks(3, train_in_sections, config, unbroken, NEVER) == [0] * 3
    for stop, n_numbers in (((0, 1), 3), ((1, None), 2), ((2, 2), 3)):
        assert run_ranks(3, train_in_sections, config, run, stop) == [0] * 3
        state = load_checkpoint(run / "checkpoints/last.pt")
        assert len(state["position"]) == n_numbers
    # their parts of the last batch of an epoch differ in size, and so does what dropout draws
    assert not all(torch.equal(state["random"][0], other) for other in state["random"])
    assert run_ranks(3, train_in_sections, config, run, NEVER) == [0] * 3
    assert_equal_runs(run, unbroken)
