"""Buffers of references: what enters, what is drawn, what is kept with it, how it is stored."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from iirc_data.errors import BufferStorageError, ConfigurationError
from iirc_data.loader.batch import Placement
from iirc_train.buffer import BufferStore, Column, RandomBuffer, ReservoirBuffer
from iirc_train.buffer.balanced import balanced_slots
from iirc_train.buffer.columns import ColumnTables
from iirc_train.buffer.reference_store import ReferenceStore
from iirc_train.buffer.reservoir import drawn_slots, reservoir_slots, without_replaced
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS, MethodParts, er
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.settings import experiment_config
from iirc_train.methods.stages import Stage
from iirc_train.run.directory import RunDirectory
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training import remembering
from iirc_train.training.branch import branch_experiment
from iirc_train.training.components import Experiment
from iirc_train.training.launch import run_experiment
from iirc_train.training.trainer import Training
from tests.memories import assert_equal_memories, stored_memories

QUIET = Console(quiet=True)


# ---------------------------------------------------------------------- pure functions


def test_every_sample_of_a_stream_is_kept_with_the_same_probability():
    n, n_slots, runs = 40, 8, 2000
    kept = np.zeros(n)
    for seed in range(runs):
        slots = np.full(n_slots, -1)
        for number, slot in enumerate(reservoir_slots(0, n, n_slots=n_slots, seed=seed).tolist()):
            if slot < n_slots:
                slots[slot] = number
        kept[slots] += 1
    expected, deviation = runs * n_slots / n, (runs * 0.2 * 0.8) ** 0.5
    assert np.abs(kept - expected).max() < 4.5 * deviation


@given(
    cuts=st.lists(st.integers(0, 60), max_size=5),
    n_slots=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=50, deadline=None)
def test_a_reservoir_does_not_depend_on_how_the_stream_is_cut(cuts, n_slots, seed):
    whole = reservoir_slots(0, 60, n_slots=n_slots, seed=seed)
    bounds = [0, *sorted(cuts), 60]
    parts = [reservoir_slots(a, b, n_slots=n_slots, seed=seed) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole[:n_slots].tolist() == list(range(n_slots)) and whole.max() <= n_slots
    # a step that drops samples which it replaces itself ends in the same reservoir
    slow, fast = np.full(n_slots + 1, -1), np.full(n_slots + 1, -1)
    for number, slot in enumerate(whole.tolist()):
        slow[slot] = number
    kept = without_replaced(whole, n_slots)
    fast[kept] = np.arange(60)
    assert np.array_equal(slow[:-1], fast[:-1])
    assert max(Counter(kept[kept < n_slots].tolist()).values()) == 1


def test_draws_are_distinct_memories_and_independent_of_each_other():
    key = {"seed": 3, "epoch": 1, "position": 64}
    first, second = (drawn_slots(50, 10, **key, draw=draw) for draw in (0, 1))
    assert len({*first.tolist()}) == len({*second.tolist()}) == 10
    assert first.tolist() != second.tolist()
    assert np.array_equal(drawn_slots(50, 10, **key, draw=0), first)
    assert sorted(drawn_slots(4, 10, **key, draw=0).tolist()) == [0, 1, 2, 3]


@given(
    tasks=st.lists(st.lists(st.integers(0, 5), max_size=40), min_size=1, max_size=4),
    n_slots=st.integers(1, 25),
)
@settings(max_examples=50, deadline=None)
def test_the_balanced_sampler_keeps_what_the_papers_algorithm_keeps(tasks, n_slots):
    """The algorithm as printed, with sets of samples; random choices differ, numbers do not."""
    contents, expected = np.empty(0, np.int64), {}
    chance = random.Random(0)
    for task, classes in enumerate(tasks):
        new = np.array(classes, np.int64)
        generator = np.random.default_rng(task)
        chosen = balanced_slots(new, contents, n_slots=n_slots, generator=generator)
        slots = max([len(contents) - 1, *chosen]) + 1
        before, contents = contents, np.empty(slots, np.int64)
        contents[: len(before)] = before
        for slot, number in chosen.items():
            contents[slot] = new[number]
        for number, name in enumerate(classes):
            is_new = name not in expected
            share = n_slots / len(expected.keys() | {name})
            if is_new or len(expected[name]) < share:
                if sum(map(len, expected.values())) >= n_slots:
                    most = max(expected.values(), key=len)
                    most.remove(chance.choice(sorted(most)))
                expected.setdefault(name, set()).add((task, number))
        found = Counter(contents.tolist())
        assert sum(found.values()) == sum(map(len, expected.values())) <= n_slots
        # equally large classes may lose their sample in another order
        assert sorted(found.values()) == sorted(filter(None, map(len, expected.values())))


# ---------------------------------------------------------------------- in a run


@pytest.fixture(scope="module")
def tiny(tiny_settings) -> dict[str, object]:
    return tiny_settings | {
        "network": "tests.small_network:Small",
        "n_layers": None,
        "batch_size": 8,
        "epochs_per_task": 2,
        "threads": 1,
        "decoder": "pillow",
        "n_memories_per_class": -1,
        "total_n_mems": 11,
        "replay_batch_size": 5,
    }


def recorded_run(monkeypatch, config, path):
    """Train, and return each batch with the columns of its samples and the task."""
    seen = []
    step = remembering.RememberingStep.__call__

    def noted(self, batch):
        remember = self._buffer.remember
        self._buffer.remember = lambda b, columns, task: (
            seen.append((given[0], dict(columns), task)),
            remember(b, columns, task),
        )
        given = [self._buffer.with_columns(batch)]
        try:
            return step(self, batch)
        finally:
            del self._buffer.remember

    monkeypatch.setattr(remembering.RememberingStep, "__call__", noted)
    run_experiment(config, path, QUIET)
    return seen


@pytest.mark.parametrize("stream", ["presentations", "first_epoch"])
def test_a_step_draws_what_a_reservoir_of_the_stream_so_far_holds(
    tiny, tmp_path, monkeypatch, stream
):
    """Vitter's algorithm R, sample by sample, over the batches that the network saw."""
    config = experiment_config(**tiny, method="der_plus_plus", reservoir_stream=stream)
    slots, n_seen, n_of_own_task, drawn_twice = {}, 0, 0, []
    n_samples: dict[int, set[int]] = {}
    for batch, columns, task in recorded_run(monkeypatch, config, tmp_path / "run"):
        assert [len(draw.slots) for draw in batch.draws] == ([5, 5] if slots else [])
        for draw in batch.draws:
            ids = batch.whole.sample_ids[draw.rows].tolist()
            targets = batch.whole.targets[draw.rows]
            for row, slot in enumerate(draw.slots.tolist()):
                sample_id, labels, logits, of_task = slots[slot]
                assert sample_id == ids[row]
                assert targets[row].nonzero().flatten().tolist() == labels
                kept = draw.columns["logits"][row]
                assert torch.equal(kept[: len(logits)], logits)
                assert kept[len(logits) :].isnan().all()
                n_of_own_task += of_task == task
        drawn_twice += [set(d.slots.tolist()) for d in batch.draws]
        if batch.placement is None:
            continue
        for row, sample_id in enumerate(batch.sample_ids.tolist()):
            n_samples.setdefault(task, set()).add(sample_id)
            (slot,) = reservoir_slots(n_seen, n_seen + 1, n_slots=11, seed=0).tolist()
            n_seen += 1
            if slot < 11:
                labels = batch.targets[row].nonzero().flatten().tolist()
                slots[slot] = sample_id, labels, columns["logits"][row].clone(), task
    shown = [
        len(ids) * (1 if stream == "first_epoch" else len(config.epochs_of_task(task)))
        for task, ids in n_samples.items()
    ]
    assert n_seen == sum(shown)
    assert n_of_own_task > 0  # memories of the current task are drawn, too
    assert any(a != b for a, b in zip(drawn_twice[::2], drawn_twice[1::2], strict=True))
    stored = stored_memories(tmp_path / "run/buffer.zarr")[1]
    assert stored["n_seen"] == n_seen
    for slot, (sample_id, _, logits, task) in slots.items():
        assert stored[f"{slot}/reference"][:2] == [sample_id, task]
        assert np.array_equal(stored[f"{slot}/logits"], logits.numpy())


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run of DER with checkpoints within tasks."""
    config = experiment_config(
        **tiny,
        method="der",
        checkpoint_every="2steps",
        save_each_task_model=True,
        logit_precision="float16",
    )
    return run_experiment(config, tmp_path_factory.mktemp("der") / "run", QUIET)


def segments_in(path: Path) -> set[int]:
    """Return the numbers of the stored segments."""
    return {int(folder.name) for folder in (path / "segments").glob("*/")}


def test_a_store_of_references_keeps_the_ends_of_tasks_and_refuses_other_readers(finished):
    path = finished / "buffer.zarr"
    store = ReferenceStore(path, read_only=True)
    ends = [store.generation(n) for n in sorted(store.generations())]
    assert [end.n_classes for end in ends] == [2, 4, 6, 8]
    assert [sum(end.counts.values()) for end in ends] == [11] * 4
    assert segments_in(path) == {n for end in ends for n in end.segments}
    last = [store.read_segment(n) for n in ends[-1].segments]
    assert sum(len(segment.slots) for segment in last) <= 22  # never more than twice the buffer
    assert {s.columns["logits"].dtype.name for s in last} == {"float16"}
    with pytest.raises(BufferStorageError, match=r"version 4, expected .* version 2 or 3"):
        BufferStore(path, read_only=True)


def test_a_damaged_segment_is_an_error_that_names_it(finished, tmp_path):
    import shutil

    path = tmp_path / "buffer.zarr"
    shutil.copytree(finished / "buffer.zarr", path)
    number = max(segments_in(path))
    chunks = [p for p in (path / f"segments/{number:06d}").rglob("*") if "c" in p.parts[-2:][0]]
    for chunk in [p for p in chunks if p.is_file() and p.name != "zarr.json"]:
        whole = chunk.read_bytes()
        for broken in (bytes([whole[0] ^ 1]) + whole[1:], None):
            chunk.unlink() if broken is None else chunk.write_bytes(broken)
            with pytest.raises(BufferStorageError, match=f"segments/{number:06d}"):
                ReferenceStore(path).read_segment(number)
            chunk.write_bytes(whole)
    segment = ReferenceStore(path).read_segment(number)
    attributes = path / f"segments/{number:06d}/zarr.json"
    name = segment.label_names[0]
    attributes.write_text(attributes.read_text().replace(f'"{name}"', '"wolf"', 1))
    with pytest.raises(BufferStorageError, match="its digest does not match"):
        ReferenceStore(path).read_segment(number)


def test_a_branch_takes_over_the_memories_of_the_end_of_its_task(tiny, finished, tmp_path):
    branch = branch_experiment(finished, 1, tmp_path / "branch", QUIET)
    assert_equal_memories(branch / "buffer.zarr", finished / "buffer.zarr")
    ours, theirs = ((r / "metrics.jsonl").read_bytes() for r in (branch, finished))
    assert ours == theirs


def test_a_commit_writes_the_slots_that_have_changed(tiny, tmp_path):
    config = experiment_config(**tiny | {"total_n_mems": 30}, method="er")
    with Experiment(config, tmp_path / "buffer.zarr") as experiment:
        buffer = experiment.buffer
        ids = experiment.view("train", 0).sample_ids[:30]
        slots, labels = np.arange(len(ids)), np.zeros((len(ids), 2), np.int32)
        labels[:, 1] = -1
        buffer._put(slots, ids, labels, 0)
        buffer.commit_changes()
        buffer._put(slots[3:5], ids[5:7], labels[3:5] + 1, 1)
        buffer.commit_changes()
        before = buffer.store.generation(buffer.generation).segments
        assert [len(buffer.store.read_segment(n).slots) for n in before] == [len(ids), 2]
        buffer.commit_changes()  # nothing has changed
        assert buffer.generation == 2
        for first in range(0, len(ids), 4):  # never more than twice the buffer
            buffer._put(slots[first:][:7], ids[first:][:7], labels[first:][:7], 1)
            buffer.commit_changes()
            segments = buffer.store.generation(buffer.generation).segments
            rows = [len(buffer.store.read_segment(n).slots) for n in segments]
            assert len(ids) <= sum(rows) <= 2 * len(ids)
        state = buffer.buffer_state_dict()
        assert state["counts"] == {"animal": len(ids)}
        expected = buffer.references.tasks.copy()
        buffer.references.tasks[:] = 9
        buffer.load_buffer_state_dict(state)
        assert np.array_equal(buffer.references.tasks, expected)
        with pytest.raises(BufferStorageError, match="belong to different runs"):
            buffer.load_buffer_state_dict(state | {"n_seen": 1})


def test_a_buffer_that_kept_none_of_the_samples_that_it_saw_is_loaded_again(tiny, tmp_path):
    config = experiment_config(**tiny | {"total_n_mems": 30}, method="er")
    with Experiment(config, tmp_path / "buffer.zarr") as experiment:
        buffer = experiment.buffer
        ids = experiment.view("train", 0).sample_ids[:30]
        labels = np.array([[0, -1]] * 30, np.int32)
        for slots in (np.arange(30), np.full(30, 30)):  # all are kept, then none
            placement = Placement(slots, torch.from_numpy(slots), ids, labels, (30,))
            buffer.remember(SimpleNamespace(placement=placement), {}, 0)
            buffer.commit_changes()
        state = buffer.buffer_state_dict()
        assert state["n_seen"] == 60
        buffer.load_buffer_state_dict(state)
        assert buffer.n_seen == 60 and np.array_equal(buffer.references.sample_ids[:30], ids)


def test_a_commit_reads_no_generation_of_an_earlier_task_again(tiny, tmp_path, monkeypatch):
    config = experiment_config(**tiny | {"total_n_mems": 30}, method="er")
    read = []
    generation = ReferenceStore.generation
    monkeypatch.setattr(
        ReferenceStore, "generation", lambda store, n: read.append(n) or generation(store, n)
    )
    with Experiment(config, tmp_path / "buffer.zarr") as experiment:
        buffer, slots = experiment.buffer, np.arange(3)
        for task_id in range(4):
            buffer._put(slots, slots, np.zeros((3, 2), np.int32), task_id)
            buffer.update_buffer_new_task(experiment.task_data(task_id))
            buffer.collect_garbage()
        assert read == []
    again = Experiment(config, tmp_path / "buffer.zarr").buffer
    again.load_buffer_state_dict(buffer.buffer_state_dict())
    assert sorted(set(read)) == [1, 2, 3, 4]
    n_read = len(read)
    again.collect_garbage()
    assert len(read) == n_read


def test_columns_narrower_than_their_table_are_filled_with_nan_and_checked():
    tables = ColumnTables([Column("logits", 5, "float16")], 4, torch.device("cpu"))
    tables.put(torch.tensor([2, 4, 0]), {"logits": torch.arange(9.0).view(3, 3)}, (3,))
    read = tables.read(np.array([0, 2]))["logits"]
    assert read.dtype == np.float16 and read.tolist() == [[6, 7, 8], [0, 1, 2]]
    found = tables.at(torch.tensor([0, 1]))["logits"]
    assert found[0, 3:].isnan().all() and found[1].isnan().all()
    for wrong in ({}, {"logits": read.astype(np.float32)}, {"logits": np.zeros((2, 6), "f2")}):
        with pytest.raises(ValueError, match=r"columns are|column logits is"):
            tables.write(np.array([0, 1]), wrong)


def test_gdumb_learns_from_balanced_memories_only_with_a_new_network(tiny, tmp_path, monkeypatch):
    config = experiment_config(
        **{k: v for k, v in tiny.items() if k != "replay_batch_size"}
        | {"epochs_per_task": 4, "lr": 0.05},
        method="gdumb",
    )
    shown, rates, starts = [], [], []
    step, epoch = BaseMethod.training_step, Training._learn_epoch

    def noted(self, batch):
        shown.append((self.cur_task_id, batch.in_buffer.all(), batch.targets.clone()))
        return step(self, batch)

    def noted_epoch(self, task_id, number, *args, **kwargs):
        rates.append(self.method.get_last_lr()[0])
        if number == 0:
            starts.append(self.method.net.model.output_layer.weight.detach().clone())
        epoch(self, task_id, number, *args, **kwargs)

    monkeypatch.setattr(BaseMethod, "training_step", noted)
    monkeypatch.setattr(Training, "_learn_epoch", noted_epoch)
    run = run_experiment(config, tmp_path / "run", QUIET)
    assert all(replayed for _, replayed, _ in shown)
    for task in range(4):
        targets = torch.cat([t for number, _, t in shown if number == task])
        n_epochs = len(config.epochs_of_task(task))
        assert len(targets) == 11 * n_epochs
        per_class = targets.sum(dim=0) / n_epochs
        n_seen = 2 * (task + 1)
        assert per_class.min() >= 1 and per_class.max() <= -(-11 // n_seen)
    # a warm start, then cycles of 1, 2, 4 epochs from lr to gdumb_min_lr; each task starts again
    low, high = 0.0005, 0.05
    part = [0.005, *(low + (high - low) * (1 + np.cos(np.pi * x)) / 2 for x in (0, 0, 0.5))]
    assert rates[-4:] == pytest.approx(part)
    bound = max(start.abs().max() for start in starts)
    assert bound <= starts[0].shape[1] ** -0.5  # weights as nn.Linear draws them
    assert not torch.equal(starts[0], starts[1])
    assert sum(stored_memories(run / "buffer.zarr")[0].values()) == 11


# ---------------------------------------------------------------------- errors


def test_methods_and_buffers_that_do_not_fit_are_refused(tiny, monkeypatch):
    for name, parts, message in [
        ("wrong", MethodParts(er.Model, RandomBuffer), "draws memories in .* is a RandomBuffer"),
        ("wrong", MethodParts(METHODS["finetune"].model, ReservoirBuffer), "draws no memories"),
    ]:
        monkeypatch.setitem(METHODS, name, parts)
        own = tiny if parts.model is er.Model else tiny | {"replay_batch_size": None}
        values = {k: v for k, v in own.items() if v is not None or k == "n_layers"}
        config = ExperimentConfig.parse(values | {"method": name}, own=["replay_batch_size"])
        with Experiment(config) as experiment, pytest.raises(ConfigurationError, match=message):
            experiment.training_loader(experiment.view("train", 0))
    monkeypatch.setitem(METHODS, "wrong", MethodParts(METHODS["der"].model, RandomBuffer))
    config = ExperimentConfig.parse(tiny | {"method": "wrong"}, own=["replay_batch_size"])
    with pytest.raises(ConfigurationError, match=r"keeps logits .* RandomBuffer keeps images only"):
        Experiment(config)
    with pytest.raises(ConfigurationError, match="a stage on a balanced set needs HerdingBuffer"):
        ReservoirBuffer({"n_memories_per_class": 4}).choose(None, ["a"], 1)
    with pytest.raises(ConfigurationError, match="gdumb learns from memories only"):
        METHODS["gdumb"].buffer({"n_memories_per_class": 0})


def test_the_first_epoch_of_a_task_comes_after_the_stages_of_earlier_ones():
    class Staged(er.Model):
        def stages_of_task(self, task_id):
            return (Stage("more", 3),)

    config = {"epochs_per_task": 2, "first_task_epochs": 4, "reservoir_stream": "first_epoch"}
    names = {"a": 0, "b": 1, "c": 2}
    method = Staged([1, 1, 1], names, config | {"n_layers": 8})
    assert [method.kept_epochs(task).start for task in range(3)] == [0, 7, 12]


def test_memories_that_processes_cannot_share_are_refused(tiny, monkeypatch):
    config = experiment_config(**tiny, method="er")
    with Experiment(config) as experiment:
        monkeypatch.setattr("iirc_train.buffer.reservoir_buffer.world_size", lambda: 8)
        with pytest.raises(ConfigurationError, match="5 memories per step cannot be split among 8"):
            experiment.training_loader(experiment.view("train", 0))


def test_without_memories_replay_is_finetuning(tiny, tmp_path):
    runs = []
    for method in ("er", "finetune"):
        own = tiny | {"total_n_mems": 0, "method": method}
        if method == "finetune":
            del own["replay_batch_size"]
        with Experiment(experiment_config(**own)) as experiment:
            path = tmp_path / method
            training = Training(experiment, RunDirectory.create(path, experiment.config))
            training.learn_task(TrainingProgress(QUIET, "run", 4))
            runs.append((path / "metrics.jsonl").read_bytes())
    assert runs[0] == runs[1]
