"""Frozen features: computed once, kept in the cache, and trained on like images."""

import errno
import importlib
import io
import logging
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from iirc_data.augment import IMAGE_PRESETS
from iirc_data.errors import (
    CheckpointError,
    ConfigurationError,
    LoaderError,
    ShardError,
    TrainingError,
)
from iirc_data.features.array import FeatureArray, described
from iirc_data.features.chunks import METADATA_NAME
from iirc_data.features.filling import fill, load
from iirc_data.features.key import FeatureKey, shown_by
from iirc_data.features.sharing import INDEX_NAME, publish_features, pull_features
from iirc_data.features.store import FeatureStore
from iirc_data.loader import make_loader
from iirc_data.loader.decoder import DecodeRequest
from iirc_data.loader.features import FeatureDecoder
from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.union import UnionStore
from iirc_data.sources import open_folder
from iirc_train.cli.app import app
from iirc_train.cli.compute_features import Bar
from iirc_train.config import ExperimentConfig
from iirc_train.methods import get_method
from iirc_train.models.definition import definition_digest
from iirc_train.models.networks import make_network
from iirc_train.models.weights import trunk_digest
from iirc_train.run.record import read_record
from iirc_train.training import features as extraction
from iirc_train.training.branch import branch_experiment
from iirc_train.training.components import Experiment
from iirc_train.training.features import why_not_constant
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.conftest import write_image_folder
from tests.ranks import run_ranks
from tests.test_resume import BrokenOffError, assert_equal_runs, break_off_at_save

QUIET = Console(quiet=True)
SIZE = 5
ROWS = np.arange(6)
WEIGHTS = "a" * 64


def a_key(**changes: object) -> FeatureKey:
    fields = {
        "network": "net",
        "weights": WEIGHTS,
        "image_preset": shown_by(IMAGE_PRESETS["cifar"]),
        "dataset": "images",
        "dataset_digest": "b" * 64,
    }
    return FeatureKey.model_validate(fields | changes)


def expected(rows: np.ndarray, size: int) -> np.ndarray:
    return (rows[:, None] + np.linspace(0, 0.5, size)).astype(np.float32)


@pytest.fixture
def one_row_per_chunk(monkeypatch):
    monkeypatch.setattr("iirc_data.features.chunks._MOST_ROWS", 1)


def an_array(cache: Path, n: int = len(ROWS), size: int = SIZE) -> FeatureArray:
    return FeatureArray(CacheFolder(cache), a_key(), (n, size))


class Computing:
    """Computes features in batches of two, and notes of which rows."""

    def __init__(self, size: int = SIZE, most: int = 1 << 30) -> None:
        self.rows: list[int] = []
        self._size, self._most = size, most

    def __call__(self, rows):
        for start in range(0, len(rows), 2):
            batch = rows[start : start + 2]
            if len(self.rows) + len(batch) > self._most:
                raise BrokenOffError
            self.rows += batch.tolist()
            yield expected(batch, self._size)


# --- the array in the cache ------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(6, 1 << 20), (2050, 3), (1, 1)])
def test_plain_zarr_reads_the_features_and_nan_where_none_are(tmp_path, n, size):
    rows = np.arange(0, n, 2)
    array = an_array(tmp_path, n, size)
    assert fill(array, rows, Computing(size)) == len(rows)
    found = zarr.open_array(array.folder, mode="r")[:]
    assert found.dtype == np.float32 and found.shape == (n, size)
    assert np.array_equal(found[rows], expected(rows, size))
    assert np.isnan(found[1::2]).all()
    again = an_array(tmp_path, n, size)
    assert len(load(again, rows)) == 0
    assert np.array_equal(again.values[rows], found[rows])
    assert described(array.folder) == (a_key(), (n, size))


def test_rows_are_added_to_chunks_that_hold_others(tmp_path):
    for rows in ([0, 3], [1, 3, 4]):
        fill(an_array(tmp_path, 6, 3), np.array(rows), computing := Computing(3))
    assert computing.rows == [1, 4]
    assert np.array_equal(load(an_array(tmp_path, 6, 3), ROWS), [2, 5])


@pytest.mark.usefixtures("one_row_per_chunk")
def test_what_a_killed_process_had_finished_stays(tmp_path):
    with pytest.raises(BrokenOffError):
        fill(an_array(tmp_path), ROWS, killed := Computing(most=4))
    assert fill(an_array(tmp_path), ROWS, resumed := Computing()) == 6 - len(killed.rows)
    assert sorted(killed.rows + resumed.rows) == ROWS.tolist()
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.lock"))


def test_what_an_interrupted_process_has_shown_as_done_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("iirc_data.features.chunks._MOST_ROWS", 4)
    shown = []

    def progress(computed, left, total):
        shown.append((computed, left, total))
        if computed == 2:  # half a chunk
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(an_array(tmp_path), ROWS, Computing(), progress)
    assert shown == [(0, 6, 6), (2, 4, 6)]
    shown.clear()
    fill(array := an_array(tmp_path), ROWS, resumed := Computing(), lambda *n: shown.append(n))
    assert resumed.rows == [2, 3, 4, 5]
    assert shown[0] == (0, 4, 6) and shown[-1] == (4, 0, 6)
    assert np.array_equal(array.values, expected(ROWS, SIZE))


@pytest.mark.usefixtures("one_row_per_chunk")
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:5] + b"x" + b[6:], lambda b: b""]
)
def test_a_damaged_chunk_is_reported_and_computed_again(tmp_path, caplog, damage):
    array = an_array(tmp_path)
    fill(array, ROWS, Computing())
    array.path(2).write_bytes(damage(array.path(2).read_bytes()))
    fill(again := an_array(tmp_path), ROWS, computing := Computing())
    assert computing.rows == [2]
    assert "is damaged: its features are computed again" in caplog.text
    assert np.array_equal(again.values, expected(ROWS, SIZE))


@pytest.mark.usefixtures("one_row_per_chunk")
@pytest.mark.parametrize("full", ["sync_file", "CacheFolder._write_usage", "make_folder"])
def test_a_full_disk_is_one_error_and_leaves_what_was_whole(tmp_path, monkeypatch, full):
    fill(array := an_array(tmp_path), ROWS, Computing())
    array.path(1).write_bytes(b"damaged")  # so that a chunk is replaced

    def raise_full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"iirc_data.shards.cache_folder.{full}", raise_full)
        with pytest.raises(ShardError, match=r"cannot keep features in .*: No space left on dev"):
            fill(an_array(tmp_path), ROWS, Computing())
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.lock"))
    fill(again := an_array(tmp_path), ROWS, computing := Computing())
    assert set(computing.rows) <= {1}
    assert np.array_equal(again.values, expected(ROWS, SIZE))


@pytest.mark.usefixtures("one_row_per_chunk")
def test_those_who_need_the_same_features_share_the_work(tmp_path):
    both = threading.Barrier(2, timeout=60)
    workers = [Computing() for _ in range(2)]
    arrays = [an_array(tmp_path) for _ in workers]

    def work(number: int) -> None:
        def compute(rows):
            if not workers[number].rows:
                both.wait()  # each computes at least one chunk
            yield from workers[number](rows)

        fill(arrays[number], ROWS, compute)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(workers[0].rows + workers[1].rows) == ROWS.tolist()
    for array in arrays:
        assert np.array_equal(array.values, expected(ROWS, SIZE))


@pytest.mark.usefixtures("one_row_per_chunk")
def test_a_cache_with_a_limit_keeps_what_fits_and_the_run_has_all(tmp_path):
    size = 1 << 18
    cache = CacheFolder(tmp_path, limit=4 * 4 * size)
    array = FeatureArray(cache, a_key(), (len(ROWS), size))
    fill(array, ROWS, Computing(size))
    assert np.array_equal(array.values, expected(ROWS, size))
    assert sum(file.bytes for file in cache.held(array.folder)) <= 4 * 4 * size
    assert 3 <= len(load(an_array(tmp_path, size=size), ROWS)) < len(ROWS)


def test_the_key_names_everything_that_features_depend_on_and_nothing_else():
    preset = IMAGE_PRESETS["cifar"]
    same = [
        a_key(),
        a_key(dataset="other name"),
        a_key(image_preset=shown_by(IMAGE_PRESETS["cifar"].model_copy(update={"train": None}))),
    ]
    other = [
        a_key(network="other"),
        a_key(weights="c" * 64),
        a_key(definition="c" * 64),
        a_key(dataset_digest="c" * 64),
        a_key(image_preset=shown_by(preset.model_copy(update={"std": (1.0, 1.0, 1.0)}))),
        a_key(image_preset=shown_by(IMAGE_PRESETS["imagenet"])),
    ]
    assert len({key.digest for key in same}) == 1
    assert len({key.digest for key in same + other}) == 1 + len(other)


# --- publishing and pulling ------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[CacheFolder, Path, str]:
    folder = tmp_path_factory.mktemp("published")
    cache = CacheFolder(folder / "cache")
    fill(FeatureArray(cache, a_key(), (2050, 3)), np.arange(2050), Computing(3))
    digest = publish_features(cache, a_key().digest, folder / "there")
    assert publish_features(cache, a_key().digest, folder / "there") == digest
    return cache, folder / "there", digest


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_features_that_are_pulled_are_those_that_were_published(published, tmp_path, protocol):
    cache, place, digest = published
    address = f"{protocol}{place}"
    if protocol:
        assert publish_features(cache, a_key().digest, address) == digest
    pulled = CacheFolder(tmp_path)
    assert pull_features(pulled, f"{address}@sha256:{digest}") == (a_key(), digest)
    fill(array := FeatureArray.open(pulled, a_key().digest), np.arange(2050), none := Computing(3))
    assert not none.rows
    assert np.array_equal(array.values, expected(np.arange(2050), 3))


def test_a_pull_goes_on_with_what_is_there_and_replaces_what_is_damaged(published, tmp_path):
    _, place, _ = published
    cache = CacheFolder(tmp_path)
    pull_features(cache, place)
    array = FeatureArray.open(cache, a_key().digest)
    kept = array.path(0).stat().st_mtime_ns
    array.path(1).write_bytes(b"damaged")
    array.path(2).unlink()
    pull_features(cache, place)
    assert array.path(0).stat().st_mtime_ns == kept
    assert len(load(array, np.arange(2050))) == 0


def test_what_does_not_match_its_digest_is_not_pulled(published, tmp_path):
    cache, _, digest = published
    place = tmp_path / "there"
    publish_features(cache, a_key().digest, place)
    with pytest.raises(ShardError, match=f"has features with the digest {digest}, not the pinned"):
        pull_features(CacheFolder(tmp_path / "cache"), f"{place}@sha256:{'0' * 64}")
    content = bytearray((place / "1.0").read_bytes())
    content[7] ^= 1
    (place / "1.0").write_bytes(content)
    with pytest.raises(ShardError, match=r"1\.0 does not match its digest"):
        pull_features(CacheFolder(tmp_path / "cache"), place)
    assert not (tmp_path / "cache" / a_key().digest / "1.0").exists()
    for text, said in [(b"[]", "is not an index"), (b'{"format": "iirc-features"', "is not an in")]:
        (place / INDEX_NAME).write_bytes(text)
        with pytest.raises(ShardError, match=said):
            pull_features(CacheFolder(tmp_path / "cache"), place)


SHAPES = ["[4, 0]", "[-1, 3]", "[Infinity, 3]", "[3]", "[" * 100_000]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_a_shape_that_no_features_have_is_refused(published, tmp_path, shape):
    cache, _, _ = published
    text = (cache.base / a_key().digest / METADATA_NAME).read_text()
    changed = re.sub(r'"shape": \[[^]]*]', f'"shape": {shape}', text)
    assert changed != text
    (tmp_path / METADATA_NAME).write_text(changed)
    with pytest.raises(ShardError, match="does not describe features"):
        described(tmp_path)


def test_only_all_features_of_a_dataset_are_published_and_over_no_others(published, tmp_path):
    _, place, _ = published
    cache = CacheFolder(tmp_path)
    fill(an_array(tmp_path, 6, 3), np.arange(4), Computing(3))
    with pytest.raises(ShardError, match="lacks 2 of 6 features of images: compute all of them"):
        publish_features(cache, a_key().digest, tmp_path / "there")
    fill(an_array(tmp_path, 6, 3), ROWS, Computing(3))
    with pytest.raises(ShardError, match="already holds other features: give another address"):
        publish_features(cache, a_key().digest, place)
    with pytest.raises(ShardError, match="does not describe features"):
        FeatureArray.open(cache, "0" * 64)


# --- features in the place of images ---------------------------------------------------------


def test_features_of_several_datasets_are_read_by_the_sample(tmp_path, tiny_store):
    images = write_image_folder(tmp_path / "more", {"train": {"ant": 4}, "test": {"ant": 2}})
    write_shards(open_folder(images), tmp_path / "shards")
    union = UnionStore.open({"tiny": str(tiny_store.root), "more": str(tmp_path / "shards")})
    arrays = []
    for number, dataset in enumerate(union.datasets.values()):
        key = a_key(dataset_digest=dataset.digest)
        array = FeatureArray(CacheFolder(tmp_path / "cache"), key, (len(dataset), 3))
        fill(array, np.arange(len(dataset)), lambda rows, n=number: iter([expected(rows, 3) + n]))
        arrays.append(array)
    store = FeatureStore(union, arrays)
    ids = np.array([len(union) - 1, 0, len(tiny_store), 5])
    rows = np.array([5, 0, 0, 5])
    wanted = expected(rows, 3) + np.array([1, 0, 1, 0])[:, None]
    assert np.array_equal(store.values(ids), wanted.astype(np.float32))
    assert [r.view(np.float32).tolist() for r in store.read_many(ids)] == store.values(ids).tolist()
    arrays[1].present[0] = False
    with pytest.raises(ShardError, match="lacks the features of sample 0 of images"):
        store.read(len(tiny_store))


def test_the_decoder_refuses_what_are_no_features():
    request = DecodeRequest([np.zeros(11, np.uint8)], None, lambda n: f"memory {n}")
    with pytest.raises(LoaderError, match="memory 0 has 11 bytes, not 3 numbers of a feature"):
        next(FeatureDecoder(3).images([request]))


# --- runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    frozen = {"frozen": True, "augment": False, "threads": 1, "decoder": "pillow"}
    return tiny_settings | frozen | {"method": "icarl", "epochs_per_task": 2}


def refuse(*args, **kwargs):
    raise AssertionError("computed again")


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    return run_experiment(ExperimentConfig.parse(settings), run, QUIET)


@pytest.mark.parametrize("resident", [None, False])
def test_batches_hold_the_latents_of_the_images_that_evaluation_shows(
    settings, tiny_store, resident
):
    config = ExperimentConfig.parse(settings | {"resident": resident})
    net = make_network_of(config)
    with Experiment(config) as experiment:
        view = experiment.view("train", 1)
        transforms = experiment.benchmark.image_preset
        (images,) = make_loader(
            view, tiny_store, transforms=transforms, train=False, batch_size=99, decoder="pillow"
        )
        with torch.no_grad():
            latents = dict(zip(view.sample_ids.tolist(), net(images.images)[1], strict=True))
        for loader in (experiment.training_loader(view), experiment.evaluation_loader(view)):
            batches = list(loader)
            assert sum(map(len, batches)) == len(view)
            for batch in batches:
                wanted = torch.stack([latents[i] for i in batch.sample_ids.tolist()])
                assert batch.images.shape == (len(batch), 64) and batch.images.is_contiguous()
                torch.testing.assert_close(batch.images, wanted)
                output, latent = experiment.method.forward_net(batch.images)
                assert torch.equal(latent, batch.images) and output.shape == (len(batch), 8)
        data = experiment.task_data(1)
        assert torch.equal(
            data[3][0], torch.from_numpy(experiment.samples.values(view.sample_ids[3:4])[0])
        )
        assert data.get_item(3)[0].size == (32, 32)  # the stored image


def make_network_of(config: ExperimentConfig) -> torch.nn.Module:
    torch.manual_seed(config.seed)
    return make_network(
        config.model_copy(update={"network": "resnet8", "n_layers": None}), 8
    ).eval()


def test_runs_share_features_whatever_their_method_and_schedule(
    settings, unbroken, tmp_path, monkeypatch
):
    monkeypatch.setattr(extraction, "extracted", refuse)
    again = run_experiment(ExperimentConfig.parse(settings), tmp_path / "again", QUIET)
    assert (again / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    for changes in [{"method": "finetune", "schedule": 1}, {"method": "er", "lr": 0.01}]:
        own = {"total_n_mems": 9, "n_memories_per_class": -1} if "lr" in changes else {}
        Experiment(ExperimentConfig.parse(settings | changes | own)).close()
    bare = tmp_path / "bare"  # a copy without a shard
    bare.mkdir()
    for name in ("manifest.json", "index.npz"):
        shutil.copy(Path(settings["data"]) / name, bare)
    Experiment(ExperimentConfig.parse(settings | {"data": str(bare)})).close()
    record = read_record(unbroken)["sessions"][0]["resolved"]
    assert record["decoder"] == "features" and len(record["features"]) == 16


def test_the_buffer_keeps_features_and_replays_them(settings, unbroken):
    with Experiment(ExperimentConfig.parse(settings), unbroken / "buffer.zarr") as experiment:
        counts = experiment.buffer.store.counts(4)
        experiment.buffer.load_buffer_state_dict({"generation": 4, "counts": counts})
        memories = experiment.memory_data(3)
        values = experiment.samples.values(extraction.all_sample_ids(experiment.splits))
        assert len(memories) > 9
        for index in range(len(memories)):
            feature, *labels = memories[index]
            assert (values == feature.numpy()).all(axis=1).any()
            assert labels[0] in experiment.class_names_to_idx


@pytest.mark.parametrize("method", ["icarl", "der_plus_plus"])
def test_a_resumed_run_on_features_ends_like_an_unbroken_one(
    settings, unbroken, tmp_path, monkeypatch, method
):
    own = {"total_n_mems": 9, "n_memories_per_class": -1, "method": method, "lr": 0.01}
    config = ExperimentConfig.parse(settings | (own if method != "icarl" else {}))
    if method != "icarl":
        unbroken = run_experiment(config, tmp_path / "unbroken", QUIET)
    monkeypatch.setattr(extraction, "extracted", refuse)
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 6)  # amid the second task
        run_experiment(config, tmp_path / "run", QUIET)
    resume_experiment(tmp_path / "run", QUIET)
    assert_equal_runs(tmp_path / "run", unbroken)


def test_a_branch_learns_from_the_same_features_or_is_refused(settings, tmp_path):
    own = settings | {"epochs_per_task": 1, "save_each_task_model": True}
    run_experiment(ExperimentConfig.parse(own), tmp_path / "run", QUIET)
    for changes, error, said in [
        ({"seed": 9}, ConfigurationError, "cannot change seed, which these weights depend on"),
        ({"augment": True}, CheckpointError, "learns from cached features, here .* from images"),
        ({"cache_features": False}, CheckpointError, "here it would be from images: keep its se"),
    ]:
        with pytest.raises(error, match=said):
            branch_experiment(
                tmp_path / "run", 0, tmp_path / "-".join(changes), QUIET, changes=changes
            )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def compute_in_turns(settings: dict[str, object], cache: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IIRC_CACHE", str(cache))
        patched.setattr("iirc_data.features.chunks._MOST_ROWS", 8)
        run_experiment(ExperimentConfig.parse(settings), cache.parent / "run", QUIET)


def test_two_processes_share_the_work_and_train_together(settings, tmp_path):
    own = settings | {"method": "finetune", "epochs_per_task": 1}
    assert run_ranks(2, compute_in_turns, own, tmp_path / "cache") == [0, 0]
    (folder,) = CacheFolder(tmp_path / "cache").datasets()
    compute_in_turns(own, tmp_path / "one" / "cache")
    (alone,) = CacheFolder(tmp_path / "one" / "cache").datasets()
    pair = [zarr.open_array(path, mode="r")[:] for path in (folder, alone)]
    np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frozen": False}, "the trunk of the network is trained: set frozen"),
        ({"augment": True}, "training images are augmented: turn that off"),
        ({"method": "podnet"}, "podnet compares feature maps"),
        ({"method": "der_expandable"}, "der_expandable trains a copy of the trunk for each task"),
    ],
)
def test_the_reason_is_given_why_features_are_not_constant(settings, changes, said):
    config = ExperimentConfig.parse(settings | changes)
    presets = {"tiny": IMAGE_PRESETS["cifar"]}
    assert said in why_not_constant(config, get_method(config.method).model, presets)


def test_asking_for_features_that_are_not_constant_is_an_error(settings):
    asked = {"augment": True, "cache_features": True}
    with pytest.raises(ConfigurationError, match="not constant, because training images are aug"):
        Experiment(ExperimentConfig.parse(settings | asked))


def test_a_note_says_why_features_of_a_frozen_network_are_not_cached(settings, caplog):
    config = ExperimentConfig.parse(settings | {"augment": True, "method": "finetune"})
    with caplog.at_level(logging.INFO, "iirc_train"), Experiment(config) as experiment:
        assert experiment.samples is experiment.store and experiment.features is None
    assert "features are not cached, because training images are augmented" in caplog.text
    preset = IMAGE_PRESETS["cifar"]
    same = {"tiny": preset.model_copy(update={"train": preset.evaluate})}
    assert why_not_constant(config, get_method("finetune").model, same) is None


def test_images_are_not_augmented_on_request_and_nothing_is_cached(settings, tiny_store):
    config = ExperimentConfig.parse(settings | {"cache_features": False, "method": "finetune"})
    with Experiment(config) as experiment:
        view = experiment.view("train", 0)
        (shown,) = experiment.training_loader(view.subset([7]))
        (evaluated,) = experiment.evaluation_loader(view.subset([7]))
        assert isinstance(experiment.samples, ShardStore)
        assert torch.equal(shown.images, evaluated.images)


def test_the_features_of_a_resumed_run_are_those_of_its_weights(settings, tmp_path):
    own = {"weights": str(tmp_path / "w.pth"), "network": "resnet8", "n_layers": None}
    config = ExperimentConfig.parse(settings | own | {"image_preset": "benchmark"})
    torch.manual_seed(9)
    net = make_network(config.model_copy(update={"weights": "none"}), 8)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    with Experiment(config) as first, Experiment(config, loads_weights=False) as resumed:
        assert first.features == resumed.features
        assert first.weights_digest == resumed.weights_digest == trunk_digest(net)
        assert first.features != features_of(settings)


def features_of(settings) -> str | None:
    with Experiment(ExperimentConfig.parse(settings)) as experiment:
        return experiment.features


def test_a_users_network_with_other_code_has_other_features(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    own = settings | {"network": "own_code:Net", "n_layers": None}
    folders = set()
    for factor in (1, 2):
        (tmp_path / "own_code.py").write_text(OWN_CODE.format(factor=factor))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "own_code", raising=False)
        with Experiment(ExperimentConfig.parse(own)) as experiment:
            folders.add(experiment.samples.arrays[0].folder)
    assert len(folders) == 2
    assert definition_digest("resnet8") is definition_digest("torchvision:resnet18") is None


OWN_CODE = """
from tests.small_network import Small

class Net(Small):
    def forward(self, images):
        latent = {factor} * self.features(images)
        return self.model.output_layer(latent), latent
"""


def test_a_network_that_returns_nan_is_refused(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "iirc_train.methods.forward_passes.Networks.forward_net",
        lambda self, x: (x, torch.full((len(x), 64), torch.nan)),
    )
    with pytest.raises(TrainingError, match=r"resnet8 returns NaN or infinite features for .*jpg"):
        Experiment(ExperimentConfig.parse(settings))
    assert not list(tmp_path.rglob("0.0"))


def test_a_sheet_of_a_run_on_features_shows_images_without_memories(unbroken, tmp_path, capsys):
    words = ["data", "show", "--run", str(unbroken), "--task=1", f"--output={tmp_path / 'a.png'}"]
    app(words, standalone_mode=False)
    assert "images, 0 of them replayed" in capsys.readouterr().out


def test_a_resumed_computation_counts_from_what_is_in_the_cache():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    display = Progress(MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), console=console)
    bar = Bar(display)
    bar("images", 0, 58_362, 60_000)
    (task,) = display.tasks
    assert (task.completed, task.total) == (1_638, 60_000)
    assert "images: 1,638 of 60,000 features are in the cache\n" in text.getvalue()
    bar("images", 362, 58_000, 60_000)
    assert (task.completed, bar.computed["images"]) == (2_000, 362)
    assert task.fields["speed"] == f"{362 / bar.seconds['images']:,.0f} images/s"


def test_the_commands_compute_show_publish_and_clear(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "cache"))

    def iirc(*words: str) -> str:
        app(words, standalone_mode=False)
        return capsys.readouterr().out

    places = [f"--{name}={settings[name]}" for name in ("data", "benchmark")]
    compute = ["features", "compute", *places, "--network=resnet8", "--device=cpu", "--threads=1"]
    assert "features of 64 numbers" in iirc(*compute)
    assert "computed 2 in" in iirc(*compute, "--all")  # the others are of the benchmark
    assert "all of them were in the cache" in iirc(*compute)
    assert "resnet8" in (shown := iirc("data", "cache"))
    (digest,) = [path.name for path in CacheFolder(tmp_path / "cache").datasets()]
    assert digest[:16] in shown
    assert "digest" in iirc("features", "publish", digest[:9], str(tmp_path / "there"))
    assert "freed" in iirc("data", "cache", "--clear", digest[:9])
    assert digest in iirc("features", "pull", str(tmp_path / "there"))
    with pytest.raises(SystemExit):
        iirc("features", "publish", "f" * 10, str(tmp_path / "there"))
    assert "holds no features 'ffffffffff'" in " ".join(capsys.readouterr().err.split())
