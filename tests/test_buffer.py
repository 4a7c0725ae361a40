"""The replay buffer: a contract for every kind and storage, and error cases."""

import copy
import hashlib
import io
import json
import os
import shutil
import sys
from collections import Counter
from contextlib import nullcontext, suppress
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.definitions import NO_LABEL_PLACEHOLDER, TRAIN
from iirc_data.errors import BufferStorageError, ConfigurationError
from iirc_data.files import canonical_json
from iirc_data.loader import make_decoder
from iirc_data.task_sequence import TaskSequence
from iirc_train.buffer.buffer import (
    HerdingBuffer,
    RandomBuffer,
    TaskDataMergedWithBuffer,
    class_latents,
)
from iirc_train.buffer.class_arrays import Memory
from iirc_train.buffer.selection import herding
from iirc_train.buffer.store import BufferStore
from iirc_train.training.task_data import ImageReader, MemoryData, TaskData
from tests.conftest import noise_image
from tests.processes import CONTEXT
from tests.test_training_kills import writes_to

CIFAR = TRANSFORM_PRESETS["cifar"]


class FlatMethod(torch.nn.Module):
    """A method whose latents are the images' mean colours."""

    device = torch.device("cpu")

    def inference(self):
        return nullcontext()

    full_precision = inference

    def forward_net(self, images):
        return images, images.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def tasks(tiny_benchmark, tiny_store) -> list[TaskData]:
    sequence = TaskSequence.from_table(tiny_benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    device = torch.device("cpu")
    reader = ImageReader(tiny_store, CIFAR, make_decoder("pillow"), device, seed=0)
    return [TaskData(sequence.view(t), reader) for t in range(len(sequence))]


def update(buffer, task):
    buffer.update_buffer_new_task(task, method=FlatMethod(), batch_size=4)


class ReplayContract:
    """The contract of every buffer."""

    @pytest.fixture(params=["memory", "disk"])
    def buffer_dir(self, request, tmp_path):
        return None if request.param == "memory" else tmp_path / "buffer.zarr"

    def make(self, buffer_dir, **config):
        raise NotImplementedError

    def test_keeps_the_requested_number_of_memories_per_class(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=5)
        for number, task in enumerate(tasks):
            update(buffer, task)
            seen = [name for t in tasks[: number + 1] for name in t.cur_task]
            assert buffer.n_memories_per_class == dict.fromkeys(seen, 5)
            assert len(buffer) == 5 * len(seen)

    def test_shares_a_fixed_total_and_drops_the_least_important(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=-1, total_n_mems=15)
        update(buffer, tasks[0])
        before = [buffer[i] for i in buffer.get_image_indices_by_class("animal")]
        assert buffer.n_memories_per_class == {"animal": 8, "vehicle": 8}
        update(buffer, tasks[1])
        assert buffer.n_memories_per_class == {"animal": 4, "vehicle": 4, "dog": 4, "bus": 4}
        after = [buffer[i] for i in buffer.get_image_indices_by_class("animal")]
        for (image, *labels), (kept, *kept_labels) in zip(before, after, strict=False):
            assert np.array_equal(np.asarray(image), np.asarray(kept))
            assert labels == kept_labels

    def test_a_class_without_samples_takes_its_share_of_a_fixed_total(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=-1, total_n_mems=15)
        empty = copy.copy(tasks[0])
        empty.get_image_indices_by_cla = lambda *args, **kwargs: np.empty(0, np.int64)
        update(buffer, empty)
        assert buffer.n_memories_per_class == {"animal": 0, "vehicle": 0}
        update(buffer, tasks[1])
        assert buffer.n_memories_per_class == {"animal": 0, "vehicle": 0, "dog": 4, "bus": 4}
        assert [labels[0] for _, *labels in (buffer[0], buffer[7])] == ["dog", "bus"]

    def test_keeps_nothing_if_no_memories_are_requested(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=0)
        update(buffer, tasks[0])
        assert len(buffer) == 0

    def test_memories_have_the_bytes_and_labels_of_the_task(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=3)
        update(buffer, tasks[1])
        source = buffer.replay_source({"animal": 0, "vehicle": 1, "dog": 2, "bus": 3})
        originals = {bytes(tasks[1].encoded(i)[0]) for i in range(len(tasks[1]))}
        assert len(source) == 6
        assert {bytes(source.read(slot)) for slot in range(6)} <= originals
        assert source.labels.tolist() == [[2, -1]] * 3 + [[3, -1]] * 3
        assert (source.heights == 32).all() and (source.widths == 32).all()
        assert source.name(4) == "replay buffer:bus/1"
        image, first, second = buffer[4]
        assert (first, second) == ("bus", NO_LABEL_PLACEHOLDER)
        assert image.size == (32, 32)

    def test_a_snapshot_does_not_change_with_the_buffer(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=-1, total_n_mems=12)
        update(buffer, tasks[0])
        source = buffer.replay_source({"animal": 0, "vehicle": 1})
        before = [bytes(source.read(slot)) for slot in range(len(source))]
        update(buffer, tasks[1])
        assert len(source) == 12
        assert [bytes(source.read(slot)) for slot in range(len(source))] == before

    def test_samples_of_any_dataset_can_be_added_one_by_one(self, buffer_dir):
        buffer = self.make(buffer_dir, n_memories_per_class=2)
        image = noise_image(0)
        buffer.begin_adding_samples()
        buffer.add_sample("dog", image, ("animal", "dog"))
        buffer.end_adding_samples()
        found, first, second = buffer[0]
        assert np.array_equal(np.asarray(found), np.asarray(image))
        assert (first, second) == ("animal", "dog")
        assert buffer.replay_source({"animal": 0, "dog": 7}).labels.tolist() == [[0, 7]]

    def test_transforms_follow_the_augmentation_context(self, buffer_dir):
        buffer = self.make(
            buffer_dir,
            n_memories_per_class=1,
            essential_transforms_fn=lambda image: "essential",
            augmentation_transforms_fn=lambda image: "augmented",
        )
        buffer.begin_adding_samples()
        buffer.add_sample("dog", noise_image(0), ("dog", NO_LABEL_PLACEHOLDER))
        buffer.end_adding_samples()
        assert buffer[0][0] == "augmented"
        with buffer.disable_augmentations():
            assert buffer[0][0] == "essential"
        assert buffer[0][0] == "augmented"

    def test_wrong_use_is_an_error(self, buffer_dir):
        buffer = self.make(buffer_dir, n_memories_per_class=1)
        with pytest.raises(BufferStorageError, match="begin_adding_samples"):
            buffer.add_sample("dog", noise_image(0), ("dog", NO_LABEL_PLACEHOLDER))
        with pytest.raises(BufferStorageError, match="no class 'cat'"):
            buffer.remove_samples("cat", 1)
        with pytest.raises(BufferStorageError, match="no class 'cat'"):
            buffer.get_image_indices_by_class("cat")
        with pytest.raises(IndexError):
            buffer[0]

    def test_an_earlier_state_can_be_restored(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=-1, total_n_mems=8)
        update(buffer, tasks[0])
        state = buffer.buffer_state_dict()
        expected = [np.asarray(buffer[i][0]) for i in range(len(buffer))]
        update(buffer, tasks[1])
        update(buffer, tasks[2])
        buffer.load_buffer_state_dict(state)
        assert buffer.buffer_state_dict() == state
        assert all(
            np.array_equal(np.asarray(buffer[i][0]), image) for i, image in enumerate(expected)
        )
        assert buffer.store.generations() == {state["generation"]}
        update(buffer, tasks[1])  # and continue from there
        assert buffer.n_memories_per_class == {"animal": 2, "vehicle": 2, "dog": 2, "bus": 2}


class TestRandomBuffer(ReplayContract):
    def make(self, buffer_dir, **config):
        functions = {key: config.pop(key) for key in list(config) if key.endswith("_fn")}
        return RandomBuffer(config, buffer_dir=buffer_dir, **functions)

    def test_the_choice_depends_on_the_seed_alone(self, buffer_dir, tasks):
        buffers = [self.make(None, n_memories_per_class=4) for _ in range(2)]
        for buffer in buffers:
            update(buffer, tasks[0])
        assert all(
            np.array_equal(np.asarray(buffers[0][i][0]), np.asarray(buffers[1][i][0]))
            for i in range(8)
        )

    @pytest.mark.parametrize("pool, kept", [(-1, 4), (3, 3), (9, 4)])
    def test_a_pool_limits_the_number_of_memories(self, buffer_dir, tasks, pool, kept):
        buffer = self.make(buffer_dir, n_memories_per_class=4, max_mems_pool_per_class=pool)
        update(buffer, tasks[1])
        assert set(buffer.n_memories_per_class.values()) == {kept}


class TestHerdingBuffer(ReplayContract):
    def make(self, buffer_dir, **config):
        functions = {key: config.pop(key) for key in list(config) if key.endswith("_fn")}
        return HerdingBuffer(config, buffer_dir=buffer_dir, **functions)

    def test_memories_are_those_that_herding_chooses_in_order(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=4)
        update(buffer, tasks[1])
        indices = tasks[1].get_image_indices_by_cla("dog", shuffle=False)
        latents = class_latents(FlatMethod(), tasks[1], indices, batch_size=3)
        expected = indices[herding(latents, 4)]
        source = buffer.replay_source({"animal": 0, "vehicle": 1, "dog": 2, "bus": 3})
        assert [bytes(source.read(slot)) for slot in range(4)] == [
            bytes(tasks[1].encoded(int(index))[0]) for index in expected
        ]

    def test_a_pool_limits_the_samples_that_herding_chooses_from(self, buffer_dir, tasks):
        buffer = self.make(buffer_dir, n_memories_per_class=4, max_mems_pool_per_class=6)
        update(buffer, tasks[1])
        pool = tasks[1].get_image_indices_by_cla("dog", num_samples=6)
        assert len(pool) == 6
        source = buffer.replay_source({"animal": 0, "vehicle": 1, "dog": 2, "bus": 3})
        allowed = {bytes(tasks[1].encoded(int(index))[0]) for index in pool}
        assert {bytes(source.read(slot)) for slot in range(4)} <= allowed


def test_latents_do_not_depend_on_the_batch_size_or_on_augmentation(tasks):
    indices = tasks[0].get_image_indices_by_cla("animal", shuffle=False)
    each = [class_latents(FlatMethod(), tasks[0], indices, size) for size in (1, 7, 100)]
    torch.testing.assert_close(each[0], each[1])
    torch.testing.assert_close(each[0], each[2])


def test_the_loader_reads_memories_in_order_and_endlessly(tasks):
    buffer = RandomBuffer({"n_memories_per_class": 3})
    update(buffer, tasks[0])
    memories = MemoryData(buffer, tasks[1].view, tasks[1]._reader)
    slots = memories.get_image_indices_by_class("vehicle")[::-1]
    with memories.disable_augmentations():
        (batch,) = memories.loader(slots, 8)
        assert all(torch.equal(batch.images[i], memories[slots[i]][0]) for i in range(3))
        assert memories[slots[0]][1] == "vehicle"
    stored = torch.from_numpy(np.asarray(buffer[slots[0]][0]).copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CIFAR.mean, CIFAR.std))
    torch.testing.assert_close(batch.images[0], (stored - mean) / std, atol=1e-4, rtol=1e-4)
    assert batch.in_buffer.all() and batch.targets.tolist() == [[0, 1, 0, 0]] * 3


@pytest.mark.parametrize("resident", [False, True], ids=["streaming", "resident"])
def test_memory_batches_are_full_and_can_start_at_any_batch(tasks, resident):
    buffer = RandomBuffer({"n_memories_per_class": 5})
    update(buffer, tasks[0])
    memories = MemoryData(buffer, tasks[1].view, tasks[1]._reader)
    stream = memories.endless_batches(4, resident=resident)
    shown = [next(stream) for _ in range(25)]
    slots = torch.cat([batch.sample_ids for batch in shown]).tolist()
    passes = [slots[start : start + 10] for start in range(0, 100, 10)]
    assert {len(batch) for batch in shown} == {4} and {batch.share for batch in shown} == {1.0}
    assert all(sorted(p) == list(range(-10, 0)) for p in passes)
    assert len({str(p) for p in passes}) == 10
    for first in (0, 1, 2, 3, 7, 24):
        later = next(memories.endless_batches(4, first, resident=not resident))
        assert torch.equal(later.sample_ids, shown[first].sample_ids)
        assert torch.equal(later.images, shown[first].images)
    everything = memories.endless_batches(64, resident=resident)
    assert [len(next(everything)) for _ in range(2)] == [10, 10]


def epoch_of(merged):
    return [merged[i][0] for i in range(len(merged)) if merged[i][3]]


def merged_with_buffer(multiplier):
    memories = [(f"memory {i}", "a", "b") for i in range(10)]
    return TaskDataMergedWithBuffer(memories, [("image", "c", "d")] * 3, multiplier)


def test_merged_data_shows_each_memory_once_at_multiplier_1():
    merged = merged_with_buffer(1)
    assert len(merged) == 13
    assert [merged[i] for i in range(3)] == [("image", "c", "d", False)] * 3
    assert epoch_of(merged) == [f"memory {i}" for i in range(10)]
    assert merged[12] == ("memory 9", "a", "b", True)
    with pytest.raises(IndexError, match="13"):
        merged[13]


@pytest.mark.parametrize("multiplier, most", [(0.3, 1), (2, 2), (2.5, 3)])
def test_merged_data_draws_the_fraction_again_in_each_epoch(multiplier, most):
    merged = merged_with_buffer(multiplier)
    epochs = []
    for epoch in range(40):
        merged.set_epoch(epoch)
        epochs.append(epoch_of(merged))
        counts = Counter(epochs[-1])
        assert sum(counts.values()) == 10 * multiplier
        assert all(int(multiplier) <= counts[f"memory {i}"] <= most for i in range(10))
    assert len({memory for epoch in epochs for memory in epoch}) == 10  # all are shown at some time
    merged.set_epoch(7)
    assert epoch_of(merged) == epochs[7]


def test_merged_data_may_have_no_memories_but_not_a_negative_multiplier():
    assert len(TaskDataMergedWithBuffer([], [("image", "c", "d")], 1.5)) == 1
    with pytest.raises(ValueError, match="-1"):
        merged_with_buffer(-1)


class PlainTask:
    """A dataset with only the published attributes."""

    cur_task, cur_task_id, seen_classes = ["a", "b"], 0, ["a", "b"]

    def __init__(self):
        self.images = [noise_image(seed) for seed in range(8)]

    def __len__(self):
        return 8

    def get_item(self, index):
        return self.images[index], "ab"[index % 2], NO_LABEL_PLACEHOLDER

    def __getitem__(self, index):
        image, *labels = self.get_item(index)
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float(), *labels

    def get_image_indices_by_cla(self, cla, num_samples=-1, shuffle=True):
        indices = np.arange("ab".index(cla), 8, 2)
        return indices if num_samples == -1 else indices[:num_samples]

    def disable_augmentations(self):
        from contextlib import nullcontext

        return nullcontext()


@pytest.mark.parametrize("kind", [RandomBuffer, HerdingBuffer])
def test_any_dataset_with_the_published_attributes_works(kind):
    buffer = kind({"n_memories_per_class": 2})
    task = PlainTask()
    update(buffer, task)
    assert buffer.n_memories_per_class == {"a": 2, "b": 2}
    pixels = [np.asarray(image).tobytes() for image in task.images]
    assert all(np.asarray(buffer[i][0]).tobytes() in pixels for i in range(4))


def test_the_published_argument_model_works():
    buffer = HerdingBuffer({"n_memories_per_class": 2})
    buffer.update_buffer_new_task(PlainTask(), None, model=FlatMethod(), batch_size=4)
    expected = HerdingBuffer({"n_memories_per_class": 2})
    update(expected, PlainTask())
    assert [np.asarray(buffer[i][0]).tobytes() for i in range(4)] == [
        np.asarray(expected[i][0]).tobytes() for i in range(4)
    ]


def test_herding_without_a_method_and_a_dataset_without_images_are_refused():
    with pytest.raises(ConfigurationError, match="pass method"):
        HerdingBuffer({"n_memories_per_class": 2}).update_buffer_new_task(PlainTask())

    class Tensors:
        cur_task, cur_task_id = ["a"], 0

        def get_image_indices_by_cla(self, cla, num_samples=-1, shuffle=True):
            return np.arange(2)

    with pytest.raises(ConfigurationError, match=r"Tensors has neither encoded.* nor get_item"):
        RandomBuffer({"n_memories_per_class": 2}).update_buffer_new_task(Tensors())


def test_the_hierarchy_on_disk_opens_with_plain_zarr(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 3}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    root = zarr.open_group(tmp_path / "buffer.zarr", mode="r")
    assert root.metadata.zarr_format == 3
    array = root["classes/000001"]
    assert array.attrs["class_name"] == "vehicle"
    start, stop = array.attrs["offsets"][1:3]
    encoded = array[start:stop].tobytes()
    opened = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    assert np.array_equal(opened, np.asarray(buffer[4][0]))
    assert root[f"generations/{buffer.generation:06d}"].attrs["counts"] == {
        "animal": 3,
        "vehicle": 3,
    }


def test_a_buffer_on_disk_can_be_reopened_with_its_state(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    again = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    again.load_buffer_state_dict(buffer.buffer_state_dict())
    assert len(again) == 4
    assert np.array_equal(np.asarray(buffer[3][0]), np.asarray(again[3][0]))


def test_a_state_of_another_buffer_is_refused(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    with pytest.raises(BufferStorageError, match="no generation 9"):
        buffer.load_buffer_state_dict({"generation": 9, "counts": {}})
    with pytest.raises(BufferStorageError, match="different runs"):
        buffer.load_buffer_state_dict({"generation": 1, "counts": {"animal": 7}})


def test_a_folder_that_is_not_a_buffer_is_refused(tmp_path):
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_group("weights")
    with pytest.raises(BufferStorageError, match="not a replay buffer"):
        BufferStore(tmp_path / "other.zarr")


def test_a_damaged_class_is_named(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    (first_class(tmp_path) / "zarr.json").unlink()
    with pytest.raises(BufferStorageError, match="classes/000000"):
        buffer[0]


def test_flipped_bytes_are_detected(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    chunk = first_class(tmp_path) / "0"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(BufferStorageError, match=r"cannot read .*classes/000000"):
        buffer[0]


def first_class(folder):
    return folder / "buffer.zarr" / "classes" / "000000"


def lose_a_chunk(group):
    (group / "0").unlink()


def rename_a_label(group):
    path = group / "zarr.json"
    path.write_text(path.read_text().replace('"animal"', '"animol"'))


def exchange_classes(group):
    other = group.with_name("000001")
    group.rename(group.with_name("aside"))
    other.rename(group)
    group.with_name("aside").rename(other)


def enlarge_an_array(group):
    path = group / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["shape"] = [1 << 50]
    path.write_text(json.dumps(metadata))


def exchange_labels(group):
    path = group / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["labels"][0].reverse()
    path.write_text(json.dumps(metadata))


def cut_into_many_chunks(group):
    path = group / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [1]
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    "damage",
    [
        lose_a_chunk,
        rename_a_label,
        exchange_labels,
        exchange_classes,
        enlarge_an_array,
        cut_into_many_chunks,
    ],
)
def test_altered_memories_are_refused(tmp_path, tasks, damage):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    damage(first_class(tmp_path))
    again = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    again.load_buffer_state_dict(buffer.buffer_state_dict())
    with pytest.raises(BufferStorageError, match="classes/000000"):
        again[0]


def test_a_missing_group_of_generations_is_detected(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    (tmp_path / "buffer.zarr" / "generations" / "zarr.json").unlink()
    again = BufferStore(tmp_path / "buffer.zarr")
    with pytest.raises(BufferStorageError, match=r"cannot write .*generations/000001"):
        again.commit({"animal": 2})


@pytest.mark.parametrize("at_write", range(6))
def test_a_buffer_can_be_created_after_an_interrupted_attempt(tmp_path, monkeypatch, at_write):
    writes = count()
    replace = Path.replace

    def broken(self, target):
        if next(writes) == at_write:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", broken)
        with suppress(OSError, BufferStorageError):
            BufferStore(tmp_path / "buffer.zarr")
    assert BufferStore(tmp_path / "buffer.zarr").commit({}) == 1


def test_a_generation_without_counts_is_refused(tmp_path, tasks):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    path = tmp_path / "buffer.zarr" / "generations" / "000001" / "zarr.json"
    metadata = json.loads(path.read_text())
    for wrong in ('"animal": "two"', '"animal": 1', '"animol": 2', "{"):
        path.write_text(json.dumps(metadata).replace('"animal": 2', wrong))
        with pytest.raises(BufferStorageError, match="generations/000001"):
            BufferStore(tmp_path / "buffer.zarr").counts(1)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # from zarr, when it fails
@pytest.mark.parametrize("content", ['{"a', "[]", ""])
@pytest.mark.parametrize(
    "group", [".", "classes", "classes/000000", "generations", "generations/000001"]
)
@pytest.mark.parametrize(
    "work",
    [
        lambda store: store.generations(),
        lambda store: store.counts(1),
        lambda store: store.read_class(0, "animal"),
        lambda store: store.write_class("dog", [], 1),
        lambda store: store.commit({"animal": 2}),
        lambda store: store.collect(1),
    ],
    ids=["generations", "counts", "read_class", "write_class", "commit", "collect"],
)
def test_damaged_metadata_raises_a_buffer_error(tmp_path, tasks, group, content, work):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    update(buffer, tasks[0])
    (tmp_path / "buffer.zarr" / group / "zarr.json").write_text(content)
    with suppress(BufferStorageError):
        work(BufferStore(tmp_path / "buffer.zarr"))


# --- what a commit costs, and when it is safe ---------------------------------------------------


def memories(n=2, label="animal"):
    buffer = io.BytesIO()
    noise_image(0, 8, 8).save(buffer, "PNG")
    return [Memory(buffer.getvalue(), (label, NO_LABEL_PLACEHOLDER), 8, 8)] * n


@pytest.fixture
def events(monkeypatch):
    """The synced files and folders, in order."""
    found: list[str] = []
    fsync = os.fsync

    def watched(descriptor):
        found.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return found


def synced(events, folder):
    names = [os.path.relpath(path, folder) for path in events]
    events.clear()
    return names


def test_a_commit_syncs_only_new_nodes_and_their_parents(tmp_path, events):
    path = tmp_path / "buffer.zarr"
    store = BufferStore(path)
    store.commit({})  # of a task without memories
    assert set(synced(events, tmp_path)) == {
        *("buffer.zarr/generations/000001/zarr.json", "buffer.zarr/generations/000001"),
        *("buffer.zarr/generations/zarr.json", "buffer.zarr/generations"),
        *("buffer.zarr/zarr.json", "buffer.zarr", "."),
    }
    counts = {}
    for number in range(4):
        counts[f"class {number}"] = 2
        store.write_class(f"class {number}", memories(), number)
        generation = store.commit(counts)
        names = synced(events, path)
        new = {f"classes/{number:06d}", f"generations/{generation:06d}"}
        own = [*(f"{node}/zarr.json" for node in new), f"classes/{number:06d}/0", *new]
        once = ["classes/zarr.json", "zarr.json", ".", ".."] if number == 0 else []
        assert sorted(names) == sorted([*own, "classes", "generations", *once])
        # contents before the folders and generations that refer to them
        order = [
            *(f"classes/{number:06d}/0", f"classes/{number:06d}", "classes"),
            *(f"generations/{generation:06d}/zarr.json", f"generations/{generation:06d}"),
            "generations",
        ]
        assert [name for name in names if name in order] == order
        store.collect(generation)
    assert synced(events, path) == []


@pytest.mark.parametrize("at_sync, exists", [(0, set()), (7, set()), (8, {1}), (10, {1})])
def test_a_commit_can_be_repeated_after_its_sync_failed(tmp_path, monkeypatch, at_sync, exists):
    store = BufferStore(tmp_path / "buffer.zarr")
    store.write_class("dog", memories(), 0)
    syncs = count()

    def broken(descriptor):
        if next(syncs) >= at_sync:
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(BufferStorageError, match=r"cannot write .*generations/000001.*Input/"):
            store.commit({"dog": 2})
    assert store.generations() == exists  # a generation exists only after its classes are on disk
    generation = store.commit({"dog": 2})
    assert store.counts(generation) == {"dog": 2}
    assert generation == max(exists, default=0) + 1


def test_ending_a_transaction_can_be_repeated_after_it_failed(tmp_path, monkeypatch):
    buffer = RandomBuffer({"n_memories_per_class": 2}, buffer_dir=tmp_path / "buffer.zarr")
    buffer.begin_adding_samples()
    for name in ("cat", "dog"):
        buffer.add_sample(name, noise_image(0), (name, NO_LABEL_PLACEHOLDER))
    with monkeypatch.context() as patch:
        patch.setattr(BufferStore, "commit", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            buffer.end_adding_samples()
    assert buffer.n_memories_per_class == {}
    buffer.end_adding_samples()
    assert buffer.n_memories_per_class == {"cat": 1, "dog": 1}
    assert [buffer[index][1] for index in range(2)] == ["cat", "dog"]


@pytest.mark.parametrize("folder", [True, False], ids=["disk", "memory"])
def test_the_work_of_a_commit_does_not_grow_with_the_buffer(tmp_path, folder, monkeypatch):
    store = BufferStore(tmp_path / "buffer.zarr" if folder else None)
    touched: list[str] = []
    for name in ("open", "rename", "replace", "mkdir", "unlink", "scandir", "fsync"):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, partial(count_call, touched, function))
    counts, costs = {}, []
    for number in range(12):
        touched.clear()
        counts[f"class {number}"] = 2
        store.write_class(f"class {number}", memories(), number)
        store.collect(store.commit(counts))
        costs.append(len(touched))
    assert costs[-1] <= max(costs[1:4])
    assert all(
        store.read_class(number, name).labels.shape == (2, 2) for number, name in enumerate(counts)
    )


def count_call(calls, function, *args, **kwargs):
    calls.append(function.__name__)
    return function(*args, **kwargs)


def test_a_class_takes_two_files(tmp_path):
    store = BufferStore(tmp_path / "buffer.zarr")
    store.write_class("dog", memories(20), 0)
    assert sorted(path.name for path in first_class(tmp_path).iterdir()) == ["0", "zarr.json"]


# --- version 2 ----------------------------------------------------------------------------------


def write_version_2(path, classes):
    """Write a buffer in version 2, in which each class is a group of four arrays."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.update_attributes({"format": "iirc-replay-buffer", "version": 2})
    for number, (name, kept) in enumerate(classes.items()):
        label_names = sorted({label for m in kept for label in m.labels} - {NO_LABEL_PLACEHOLDER})
        codes = {label: code for code, label in enumerate(label_names)}
        data = b"".join(memory.data for memory in kept)
        labels = [[codes.get(label, -1) for label in m.labels] for m in kept]
        arrays = {
            "data": np.frombuffer(data, np.uint8),
            "offsets": np.cumsum([0, *(len(memory.data) for memory in kept)]).astype("int64"),
            "labels": np.array(labels, "int32").reshape(-1, 2),
            "sizes": np.array([[m.height, m.width] for m in kept], "int32").reshape(-1, 2),
        }
        digest = hashlib.sha256(canonical_json([name, label_names]))
        for array in arrays.values():
            digest.update(canonical_json(array.shape))
            digest.update(np.ascontiguousarray(array).data)
        group = root.create_group(
            f"classes/{number:06d}",
            attributes={
                "class_name": name,
                "label_names": label_names,
                "sha256": digest.hexdigest(),
            },
        )
        for key, array in arrays.items():
            group.create_array(
                key,
                data=array,
                chunks=tuple(max(n, 1) for n in array.shape),
                compressors=zarr.codecs.Crc32cCodec(),
                config={"write_empty_chunks": True},
            )
    counts = {name: len(kept) for name, kept in classes.items()}
    root.create_group("generations/000003", attributes={"counts": counts})
    return {"generation": 3, "counts": counts}


def test_a_buffer_of_version_2_can_be_read_and_extended(tmp_path):
    path = tmp_path / "buffer.zarr"
    old = {"cat": memories(3, "cat"), "none": [], "dog": memories(2, "dog")}
    state = write_version_2(path, old)
    untouched = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert BufferStore(path, read_only=True).counts(3) == state["counts"]
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == untouched

    buffer = RandomBuffer({"n_memories_per_class": 4}, buffer_dir=path)
    buffer.load_buffer_state_dict(state)
    assert [buffer[index][1] for index in range(5)] == ["cat"] * 3 + ["dog"] * 2
    assert zarr.open_group(path, mode="r").attrs["version"] == 2
    buffer.begin_adding_samples()
    buffer.remove_samples("cat", 1)
    for _ in range(4):
        buffer.add_sample("bus", noise_image(1), ("bus", NO_LABEL_PLACEHOLDER))
    buffer.end_adding_samples()
    buffer.collect_garbage()
    assert zarr.open_group(path, mode="r").attrs["version"] == 3

    again = RandomBuffer({"n_memories_per_class": 4}, buffer_dir=path)
    again.load_buffer_state_dict(buffer.buffer_state_dict())
    assert again.n_memories_per_class == {"cat": 2, "none": 0, "dog": 2, "bus": 4}
    source = again.replay_source({"cat": 0, "dog": 1, "bus": 2})
    assert source.labels[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert bytes(source.read(0)) == old["cat"][0].data
    assert np.array_equal(np.asarray(again[7][0]), np.asarray(noise_image(1)))


def test_restoring_version_2_after_an_interrupted_task_loses_nothing(tmp_path):
    path = tmp_path / "buffer.zarr"
    state = write_version_2(path, {"cat": memories(3, "cat")})
    buffer = RandomBuffer({"n_memories_per_class": 3}, buffer_dir=path)
    buffer.load_buffer_state_dict(state)
    buffer.store.write_class("dog", memories(), 1)  # but no commit
    again = RandomBuffer({"n_memories_per_class": 3}, buffer_dir=path)
    again.load_buffer_state_dict(state)
    assert [again[index][1] for index in range(3)] == ["cat"] * 3
    assert [path.name for path in sorted(first_class(tmp_path).parent.glob("*/"))] == ["000000"]


def add_a_task(path, state):
    """Restore a state and add a task's classes; yield the new state, then remove the old one."""
    buffer = RandomBuffer({"n_memories_per_class": 3}, buffer_dir=path)
    buffer.load_buffer_state_dict(state)
    buffer.begin_adding_samples()
    buffer.remove_samples("cat", 1)
    for name in ("bus", "dog"):
        buffer.add_memory(name, memories(1, name)[0])
    buffer.end_adding_samples()
    yield buffer.buffer_state_dict()
    buffer.collect_garbage()


def add_a_task_and_keep_each_moment(path, state, moments):
    """Copy the folder before each write or sync, as a kill at that moment would leave it."""
    numbers = count()
    noted = None

    def watch(event, arguments):
        if writes_to(path, event, arguments):
            moment = moments / f"{next(numbers):03d}"
            with suppress(shutil.Error):  # another thread may rename a file meanwhile
                shutil.copytree(path, moment / path.name)
            (moment / "noted").write_text(json.dumps(noted))

    sys.addaudithook(watch)
    for noted in add_a_task(path, state):  # noqa: B007
        pass


@pytest.mark.parametrize("version", [2, 3])
def test_a_commit_that_is_killed_at_any_write_loses_nothing(tmp_path, monkeypatch, version):
    path = tmp_path / "buffer.zarr"
    if version == 2:
        state = write_version_2(path, {"cat": memories(3, "cat")})
    else:
        store = BufferStore(path)
        store.write_class("cat", memories(3, "cat"), 0)
        state = {"counts": {"cat": 3}}
        state["generation"] = store.commit(state["counts"])
    arguments = (path, state, tmp_path / "moments")
    process = CONTEXT.Process(target=add_a_task_and_keep_each_moment, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    moments = sorted((tmp_path / "moments").iterdir())
    noted = [json.loads((moment / "noted").read_text()) for moment in moments]
    assert len(moments) >= 20
    assert noted[0] is None
    assert noted[-1] is not None
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # by far the slowest part
    for moment, committed in zip(moments, noted, strict=True):
        left = moment / path.name
        if committed is None:  # the checkpoint refers to the earlier generation
            check_memories(left, state, {"cat": 3})
            assert not list(left.rglob("*.partial"))
            (committed,) = add_a_task(left, state)
        check_memories(left, committed, {"cat": 2, "bus": 1, "dog": 1})


def check_memories(path, state, counts):
    buffer = RandomBuffer({"n_memories_per_class": 3}, buffer_dir=path)
    buffer.load_buffer_state_dict(state)
    assert buffer.n_memories_per_class == counts
    assert [buffer[i][1] for i in range(len(buffer))] == [
        n for n in counts for _ in range(counts[n])
    ]


def test_a_newer_version_is_refused(tmp_path):
    root = zarr.open_group(tmp_path / "buffer.zarr", mode="w", zarr_format=3)
    root.update_attributes({"format": "iirc-replay-buffer", "version": 4})
    with pytest.raises(BufferStorageError, match=r"version 4, expected .* version 2 or 3"):
        BufferStore(tmp_path / "buffer.zarr")
