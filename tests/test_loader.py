"""Loaders: order, augmentation, both decoders, replay and errors."""

import ctypes
import gc
import io
import itertools
import os
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iirc_data.augment import (
    TRANSFORM_PRESETS,
    RandomCropFlip,
    RandomResizedCropFlip,
    TransformPreset,
    Unchanged,
    uniform,
)
from iirc_data.decoding import read_image
from iirc_data.definitions import TEST, TRAIN
from iirc_data.errors import LoaderError
from iirc_data.loader import make_decoder, make_engine, make_loader
from iirc_data.order import batch_bounds, endless_order, epoch_order
from iirc_data.shards import ShardStore, write_shards
from iirc_data.sources import open_folder
from iirc_data.task_sequence import TaskSequence
from iirc_data.task_view import TaskView
from tests.conftest import encode, noise_image, write_image_folder
from tests.odd_images import pixels_to_show

try:
    import nvidia.dali  # noqa: F401

    DECODERS = ["dali", "pillow"]
except ImportError:
    DECODERS = ["pillow"]

needs_dali = pytest.mark.skipif("dali" not in DECODERS, reason="DALI is not installed")
CIFAR, IMAGENET = TRANSFORM_PRESETS["cifar"], TRANSFORM_PRESETS["imagenet"]
RAW = TransformPreset(Unchanged(), Unchanged(), CIFAR.mean, CIFAR.std)


class Memories:
    """A replay source out of arrays."""

    def __init__(self, images, labels):
        self.encoded = [np.frombuffer(encode(image, "PNG"), np.uint8) for image in images]
        self.labels = np.array(labels, np.int32)
        self.heights = np.array([image.height for image in images], np.int32)
        self.widths = np.array([image.width for image in images], np.int32)

    def __len__(self):
        return len(self.encoded)

    def read(self, slot):
        return self.encoded[slot]

    def name(self, slot):
        return f"memory {slot}"


@pytest.fixture(scope="module")
def view(tiny_benchmark, tiny_store) -> TaskView:
    sequence = TaskSequence.from_table(tiny_benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    return sequence.view(1)


@pytest.fixture(scope="module")
def photographs(shared_file, tmp_path_factory) -> ShardStore:
    """The first real photographs of many sizes."""
    import tarfile

    root = tmp_path_factory.mktemp("photographs")
    with tarfile.open(shared_file("data/imagenet_sample_500.tar")) as archive:
        members = [member for member in archive if member.isfile()][:24]
        for member in members:
            path = root / "images" / "train" / "photo" / member.name.rsplit("/", 1)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())
    write_shards(open_folder(root / "images"), root / "shards")
    return ShardStore.open(root / "shards")


def everything(store: ShardStore) -> TaskView:
    """A view of all samples of a store, as one class."""
    n = len(store)
    labels = np.tile(np.array([0, -1], np.int32), (n, 1))
    return TaskView(("photo",), (0,), 0, 1, (0,), np.arange(n, dtype=np.int64), labels)


def batches(view, store, **options):
    usual = {"transforms": CIFAR, "batch_size": 8, "resident": False}
    return list(make_loader(view, store, **usual | options))


RESIDENT = pytest.mark.parametrize("resident", [False, True], ids=["streaming", "resident"])


@RESIDENT
@pytest.mark.parametrize("decoder", DECODERS)
def test_an_epoch_shows_every_sample_and_every_memory_once(view, tiny_store, decoder, resident):
    memories = Memories([noise_image(900 + i) for i in range(5)], [[0, -1]] * 5)
    found = batches(
        view, tiny_store, replay=memories, train=True, decoder=decoder, resident=resident
    )
    ids = torch.cat([batch.sample_ids for batch in found])
    in_buffer = torch.cat([batch.in_buffer for batch in found])
    assert sorted(ids[~in_buffer].tolist()) == view.sample_ids.tolist()
    assert sorted(ids[in_buffer].tolist()) == [-5, -4, -3, -2, -1]
    assert any(0 < int(batch.in_buffer.sum()) < len(batch) for batch in found)


@RESIDENT
@pytest.mark.parametrize("decoder", DECODERS)
def test_batches_keep_the_contract(view, tiny_store, decoder, resident):
    memories = Memories([noise_image(1)] * 3, [[0, 1]] * 3)
    loader = make_loader(
        view,
        tiny_store,
        memories,
        transforms=CIFAR,
        train=True,
        batch_size=10,
        decoder=decoder,
        resident=resident,
    )
    found = list(loader)
    assert len(found) == len(loader)
    for batch in found:
        assert batch.images.shape[1:] == (3, 32, 32)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.shape == (len(batch), view.n_seen_classes)
        assert batch.targets.dtype == torch.float32
        assert batch.in_buffer.dtype == torch.bool
        assert batch.sample_ids.dtype == torch.int64
        assert (batch.targets[batch.in_buffer].nonzero()[:, 1].reshape(-1, 2) < 2).all()
    position = {int(i): p for p, i in enumerate(view.sample_ids)}
    for batch in found:
        for sample_id, target in zip(batch.sample_ids.tolist(), batch.targets, strict=True):
            if sample_id >= 0:
                expected = view.labels[position[sample_id]]
                assert target.nonzero().flatten().tolist() == sorted(expected[expected >= 0])


@RESIDENT
@pytest.mark.parametrize("decoder", DECODERS)
def test_pixels_are_pillows_and_come_in_the_order_of_the_view(tiny_store, decoder, resident):
    view = everything(tiny_store).subset([7, 3, 11, 0])
    options = {"transforms": RAW, "train": False, "normalize": False, "resident": resident}
    (batch,) = batches(view, tiny_store, decoder=decoder, **options)
    assert batch.sample_ids.tolist() == [7, 3, 11, 0]
    for image, sample_id in zip(batch.images, batch.sample_ids.tolist(), strict=True):
        decoded = Image.open(io.BytesIO(tiny_store.read(sample_id).tobytes())).convert("RGB")
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(decoded))


def test_normalisation_is_torchvisions(tiny_store):
    from torchvision.transforms.v2 import functional

    view = everything(tiny_store).subset([0, 1])
    (raw,) = batches(view, tiny_store, train=False, normalize=False, decoder="pillow")
    (batch,) = batches(view, tiny_store, train=False, decoder="pillow")
    expected = functional.normalize(raw.images.float() / 255, list(CIFAR.mean), list(CIFAR.std))
    torch.testing.assert_close(batch.images, expected, atol=1e-5, rtol=1e-5)


@needs_dali
def test_decoders_are_equal_where_nothing_is_resized(view, tiny_store):
    options = {"train": True, "normalize": False, "seed": 5}
    for ours, other in zip(
        batches(view, tiny_store, decoder="dali", **options),
        batches(view, tiny_store, decoder="pillow", **options),
        strict=True,
    ):
        assert torch.equal(ours.sample_ids, other.sample_ids)
        assert torch.equal(ours.images, other.images)


@needs_dali
@pytest.mark.parametrize("train", [True, False])
def test_decoders_agree_on_resized_photographs(photographs, train):
    options = {"train": train, "normalize": False, "transforms": IMAGENET, "seed": 3}
    view = everything(photographs)
    for ours, other in zip(
        batches(view, photographs, decoder="dali", **options),
        batches(view, photographs, decoder="pillow", **options),
        strict=True,
    ):
        assert torch.equal(ours.sample_ids, other.sample_ids)
        difference = (ours.images.float() - other.images.float()).abs()
        assert difference.mean() < 0.5
        assert difference.amax() < 16


def test_evaluation_of_photographs_is_torchvisions(photographs):
    from torchvision.transforms.v2 import functional

    view = everything(photographs)
    found = batches(
        view, photographs, transforms=IMAGENET, train=False, normalize=False, decoder="pillow"
    )
    images = torch.cat([batch.images for batch in found])
    for number in range(8):
        original = Image.open(io.BytesIO(photographs.read(number).tobytes())).convert("RGB")
        resized = functional.resize(original, 256)
        expected = np.asarray(functional.center_crop(resized, 224))
        shown = images[number].permute(1, 2, 0).numpy()
        assert np.abs(shown.astype(int) - expected).max() <= 1  # rounding


@pytest.mark.parametrize("decoder", DECODERS)
def test_rare_formats_come_as_pillow_converts_them_and_16_bits_by_the_upper_8(tmp_path, decoder):
    folder = tmp_path / "images" / "train" / "photo"
    folder.mkdir(parents=True)
    for mode, extension in [("CMYK", "jpg"), ("L", "jpg"), ("P", "png"), ("RGBA", "png")]:
        noise_image(3, mode=mode).save(folder / f"{mode}.{extension}")
    deep = Image.fromarray((np.arange(1024).reshape(32, 32) * 64).astype(np.uint16))
    deep.save(folder / "I16.png")
    # 90 degrees in the EXIF orientation: the image is shown as it is stored
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_image(4).save(folder / "turned.jpg", exif=exif)
    write_shards(open_folder(tmp_path / "images"), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    (batch,) = batches(
        everything(store), store, transforms=RAW, train=False, normalize=False, decoder=decoder
    )
    for image, path in zip(batch.images, sorted(folder.iterdir()), strict=True):
        expected = pixels_to_show(Image.open(path))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected), path.name


def test_levels_of_32_bits_are_shown_as_pillow_does_and_not_by_bits_that_they_do_not_have(tmp_path):
    levels = np.arange(256, dtype=np.int32).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "deep.tiff")
    assert np.array_equal(np.asarray(read_image(tmp_path / "deep.tiff"))[..., 0], levels)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_damaged_image_is_named_by_shard_and_key_and_the_decoder_goes_on(tmp_path, decoder):
    folder = write_image_folder(tmp_path / "images", {"train": {"photo": 6}})
    whole = (folder / "train" / "photo" / "0004.jpg").read_bytes()
    (folder / "train" / "photo" / "0004.jpg").write_bytes(whole[:-80])
    write_shards(open_folder(folder), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    decoder = make_decoder(decoder)
    view = everything(store)
    with pytest.raises(LoaderError, match=r"photo-000000\.tar:0004\.jpg"):
        batches(view, store, train=False, batch_size=3, decoder=decoder)
    fine = batches(view.subset([0, 1, 2, 3, 5]), store, train=False, decoder=decoder)
    assert len(fine[0]) == 5


@pytest.mark.parametrize("decoder", DECODERS)
def test_images_of_different_sizes_that_are_not_resized_are_refused(tmp_path, decoder):
    folder = write_image_folder(tmp_path / "images", {"train": {"photo": 2}})
    (folder / "train" / "photo" / "wide.jpg").write_bytes(encode(noise_image(0, width=40)))
    write_shards(open_folder(folder), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    with pytest.raises(LoaderError, match="differ in size"):
        batches(everything(store), store, transforms=RAW, train=False, decoder=decoder)


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_decoder_serves_many_loaders_and_half_read_epochs(view, tiny_store, decoder):
    decoder = make_decoder(decoder)
    loader = make_loader(
        view,
        tiny_store,
        transforms=CIFAR,
        train=True,
        batch_size=4,
        decoder=decoder,
        resident=False,
    )
    expected = [batch.images for batch in loader]
    for _ in range(3):
        next(iter(loader))  # abandoned after one batch
    other = batches(view, tiny_store, transforms=IMAGENET, train=False, decoder=decoder)
    assert other[0].images.shape[-1] == 224
    for before, after in zip(expected, loader, strict=True):
        assert torch.equal(before, after.images)


@needs_dali
def test_training_and_evaluation_take_turns_without_building_pipelines(
    view, tiny_store, monkeypatch
):
    from iirc_data.loader import dali_pipeline

    built, build = [], dali_pipeline._build_pipeline
    monkeypatch.setattr(dali_pipeline, "_build_pipeline", lambda *a: built.append(a) or build(*a))
    decoder = make_decoder("dali", threads=1)
    options = {"transforms": CIFAR, "resident": False, "decoder": decoder, "batch_size": 8}
    train = make_loader(view, tiny_store, train=True, **options)
    evaluate = make_loader(view, tiny_store, train=False, **options)
    for epoch in range(3):
        train.set_epoch(epoch)
        assert len(list(train)) == len(list(evaluate)) == len(train)
    assert len(built) == 2


def resources() -> dict[str, int]:
    """What a process holds: threads, open files, children, and memory in KiB."""
    gc.collect()
    if hasattr(c_library := ctypes.CDLL(None), "malloc_trim"):  # of the GNU C library
        c_library.malloc_trim(0)  # memory that is free is not held, wherever earlier tests left it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "threads": int(status["Threads"]),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "children": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
        "memory": int(status["VmRSS"].split()[0]),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@RESIDENT
@pytest.mark.parametrize("decoder", DECODERS)
def test_fifty_epochs_and_twenty_tasks_leak_nothing(view, tiny_store, decoder, resident):
    decoder = make_decoder(decoder, threads=2)
    options = {"transforms": CIFAR, "decoder": decoder, "batch_size": 8}

    def learn_task(task):
        rows = np.random.default_rng(task).permutation(len(view))[:16]
        loader = make_loader(
            view.subset(rows), tiny_store, train=True, resident=resident, **options
        )
        evaluation = make_loader(view, tiny_store, train=False, resident=False, **options)
        for epoch in range(3):  # 60 in all
            loader.set_epoch(epoch)
            assert sum(len(batch) for batch in loader) == 16
            next(iter(loader))  # left half-way
            assert sum(len(batch) for batch in evaluation) == len(view)

    for task in range(4):
        learn_task(task)
    before = resources()
    for task in range(20):
        learn_task(task)
    after = resources()
    memory = after.pop("memory") - before.pop("memory")
    assert all(after[name] <= before[name] for name in after), (before, after)
    assert memory < 4096  # one batch leaked by each epoch would be 5 MiB and more


def test_closing_the_torch_decoder_ends_its_threads(view, tiny_store):
    before = set(threading.enumerate())
    decoder = make_decoder("pillow", threads=3)
    batches(view, tiny_store, train=True, decoder=decoder)
    started = set(threading.enumerate()) - before
    assert started
    decoder.close()
    assert not any(thread.is_alive() for thread in started)


@RESIDENT
def test_epochs_differ_and_repeat_by_seed(view, tiny_store, resident):
    loader = make_loader(
        view, tiny_store, transforms=CIFAR, train=True, decoder="pillow", resident=resident
    )
    first = [batch.images for batch in loader]
    loader.set_epoch(1)
    second = [batch.images for batch in loader]
    loader.set_epoch(0)
    again = [batch.images for batch in loader]
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[0], again[0])


# --- resident images --------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True], ids=["uint8", "float"])
@pytest.mark.parametrize("padding", [0, 4])
def test_resident_images_are_shown_as_streamed_ones(view, tiny_store, normalize, padding):
    """Across several chunks, with memories drawn again each epoch, starting at any batch."""
    crop = RandomCropFlip(size=32 if padding else 20, padding=padding)
    memories = Memories([noise_image(i) for i in range(7)], [[0, 1]] * 7)
    make = partial(
        make_loader,
        view,
        tiny_store,
        memories,
        transforms=TransformPreset(crop, Unchanged(), CIFAR.mean, CIFAR.std),
        train=True,
        batch_size=5,
        normalize=normalize,
        replay_multiplier=1.5,
        seed=3,
        decoder="pillow",
    )
    resident, streaming = make(resident=True), make(resident=False)
    assert resident.n_samples == streaming.n_samples == len(view) + 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iirc_data.loader.loader.RESIDENT_CHUNK", 15)
        short = make(resident=True)
    for epoch, first_batch in ((0, 0), (1, 2)):
        for loader in (resident, streaming, short):
            loader.set_epoch(epoch, first_batch)
        for expected, *found in zip(streaming, resident, short, strict=True):
            for batch in found:
                assert torch.equal(batch.images, expected.images)
                assert batch.images.stride() == expected.images.stride()
                assert torch.equal(batch.targets, expected.targets)
                assert torch.equal(batch.in_buffer, expected.in_buffer)
                assert torch.equal(batch.sample_ids, expected.sample_ids)
                assert batch.share == expected.share


def test_resident_images_are_decoded_once(view, tiny_store):
    class Counting:
        name = "counting"

        def __init__(self):
            self.decoder, self.decoded = make_decoder("pillow"), 0

        def images(self, requests):
            for images in self.decoder.images(requests):
                self.decoded += len(images)
                yield images

    decoder = Counting()
    loader = make_loader(view, tiny_store, transforms=CIFAR, train=True, decoder=decoder)
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert sum(len(batch) for batch in loader) == len(view)
    assert decoder.decoded == len(view)


def test_what_is_small_is_resident_and_what_is_large_is_not(view, tiny_store, monkeypatch):
    small = make_loader(view, tiny_store, transforms=CIFAR, train=True)
    resized = make_loader(view, tiny_store, transforms=IMAGENET, train=True)
    monkeypatch.setattr("iirc_data.loader.make.MAX_BYTES", 3 * 32 * 32 * len(view) - 1)
    large = make_loader(view, tiny_store, transforms=CIFAR, train=True)
    assert (small.is_resident, resized.is_resident, large.is_resident) == (True, False, False)


def test_images_that_cannot_be_resident_are_refused_with_the_reason(view, tiny_store):
    make = partial(make_loader, train=True, resident=True)
    with pytest.raises(LoaderError, match="the transform resizes images; use resident=False"):
        make(view, tiny_store, transforms=IMAGENET)
    with pytest.raises(LoaderError, match=r"from \[32, 32\] to \[32, 40\] pixels"):
        wide = Memories([noise_image(0, width=40)], [[0, -1]])
        make(view, tiny_store, wide, transforms=CIFAR)
    with pytest.raises(LoaderError, match="no images"):
        make(view.subset([]), tiny_store, transforms=CIFAR)


# --- order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 64, 65, 67, 130])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_evenly(n, world_size):
    bounds = [batch_bounds(n, 16, rank, world_size) for rank in range(world_size)]
    assert len({len(of_rank) for of_rank in bounds}) == 1
    places = [p for of_rank in bounds for start, stop in of_rank for p in range(start, stop)]
    assert sorted(places) == list(range(n))
    for step in zip(*bounds, strict=True):  # batch by batch, neighbouring places
        sizes = [stop - start for start, stop in step]
        assert max(sizes) - min(sizes) <= 1
        assert all(a[1] == b[0] for a, b in itertools.pairwise(step))


@pytest.mark.parametrize("n", [1, 2, 5, 200])
def test_an_endless_order_is_one_permutation_after_another(n):
    stream = endless_order(n, seed=3, start=0, stop=7 * n)
    passes = stream.reshape(7, n)
    assert all(sorted(p) == list(range(n)) for p in passes.tolist())
    assert n < 5 or len({str(p) for p in passes.tolist()}) == 7
    for start, stop in ((0, 0), (3, 3), (1, 2), (n - 1, n + 1), (n, 2 * n), (2, 6 * n + 1)):
        if start <= stop:
            part = endless_order(n, seed=3, start=start, stop=stop)
            assert part.tolist() == stream[start:stop].tolist()
    assert n < 5 or not np.array_equal(endless_order(n, seed=4, start=0, stop=7 * n), stream)


@RESIDENT
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_full_batches_of_an_endless_stream(view, tiny_store, resident, world_size):
    memories = Memories([noise_image(i) for i in range(7)], [[0, 1]] * 7)
    options = {
        "transforms": CIFAR,
        "train": True,
        "endless": True,
        "decoder": "pillow",
        "resident": resident,
        "normalize": False,
    }
    alone = make_loader(view.subset([]), tiny_store, memories, batch_size=6, **options)
    ranks = [
        make_loader(
            view.subset([]),
            tiny_store,
            memories,
            batch_size=6 // world_size,
            rank=rank,
            world_size=world_size,
            **options,
        )
        for rank in range(world_size)
    ]
    for epoch in range(2):
        for loader in (alone, *ranks):
            loader.set_epoch(epoch)
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert len(whole) == 6
            assert [len(part) for part in parts] == [6 // world_size] * world_size
            assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
            assert torch.equal(torch.cat([part.sample_ids for part in parts]), whole.sample_ids)


def test_an_endless_stream_shows_each_memory_once_a_pass(view, tiny_store):
    with pytest.raises(ValueError, match=r"once a pass, not 1\.5 times"):
        make_loader(
            view, tiny_store, transforms=CIFAR, train=True, endless=True, replay_multiplier=1.5
        )


@RESIDENT
def test_ranks_together_show_what_one_process_shows(view, tiny_store, resident):
    options = {
        "transforms": CIFAR,
        "train": True,
        "decoder": "pillow",
        "normalize": False,
        "resident": resident,
    }
    alone = batches(view, tiny_store, batch_size=12, **options)
    ranks = [
        batches(view, tiny_store, batch_size=6, rank=rank, world_size=2, **options)
        for rank in range(2)
    ]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.sample_ids, torch.cat([part.sample_ids for part in parts]))


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"rank": 2, "world_size": 2}])
def test_impossible_batches_are_refused(wrong):
    with pytest.raises(ValueError, match="expected batch_size"):
        batch_bounds(**{"n": 10, "batch_size": 4} | wrong)


def test_order_is_a_permutation_by_seed_and_epoch():
    orders = {
        (s, e): epoch_order(50, seed=s, epoch=e, shuffle=True) for s in (0, 1) for e in (0, 1)
    }
    assert all(np.array_equal(np.sort(order), np.arange(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert epoch_order(5, seed=0, epoch=0, shuffle=False).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("columns", [1, 3, 4, 23])
def test_random_numbers_of_a_place_do_not_depend_on_the_batch(columns):
    whole = uniform(1, 2, 0, 40, columns)
    parts = np.concatenate([uniform(1, 2, a, b, columns) for a, b in [(0, 7), (7, 8), (8, 40)]])
    assert np.array_equal(whole, parts)
    assert whole.min() >= 0 and whole.max() < 1


def test_resized_crops_stay_inside_and_cover_areas_evenly():
    transform = RandomResizedCropFlip()
    n = 4000
    heights, widths = np.full(n, 375, np.int32), np.full(n, 500, np.int32)
    found = transform.parameters(heights, widths, uniform(0, 0, 0, n, transform.n_random))
    top, left, height, width = found.window.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 375).all() and (left + width <= 500).all()
    aspect = width / height
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    share = height * width / (375 * 500)
    assert 0.07 < share.min() < 0.1 and share.max() > 0.9
    assert 0.45 < found.flip.mean() < 0.55


def test_resized_crops_of_extreme_shapes_are_the_largest_central_window():
    transform = RandomResizedCropFlip(scale=(5.0, 6.0))  # nothing fits
    heights, widths = np.array([30, 300, 100], np.int32), np.array([300, 30, 100], np.int32)
    found = transform.parameters(heights, widths, uniform(0, 0, 0, 3, transform.n_random))
    assert found.window.tolist() == [[0, 130, 30, 40], [130, 0, 40, 30], [0, 0, 100, 100]]


def test_evaluation_shows_each_sample_once_with_the_last_partial_batch(tiny_benchmark, tiny_store):
    sequence = TaskSequence.from_table(tiny_benchmark, tiny_store.manifest, tiny_store.table, TEST)
    view = sequence.view(range(4))
    found = batches(view, tiny_store, train=False, batch_size=9)
    assert [len(batch) for batch in found] == [9, 9, 9, 1]
    assert torch.cat([batch.sample_ids for batch in found]).tolist() == view.sample_ids.tolist()


class Unimportable:
    """Fails where a module is looked for, as Python does or as a broken installation does."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "nvidia.dali":
            raise self.error
        return


@pytest.fixture
def importing_dali(monkeypatch):
    """Return a function after which importing DALI fails with an error."""

    def fails_with(error):
        for name in [*sys.modules]:
            if name == "nvidia.dali" or name.startswith("iirc_data.loader.dali"):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Unimportable(error), *sys.meta_path])

    return fails_with


@pytest.mark.parametrize("missing", ["nvidia", "nvidia.dali"])
def test_pillow_decodes_only_where_dali_is_not_installed(importing_dali, missing, caplog):
    importing_dali(ModuleNotFoundError(f"No module named {missing!r}", name=missing))
    with caplog.at_level("INFO", "iirc_data"):
        assert make_decoder("auto").name == "pillow"
    assert "decoder pillow decodes images for cpu (asked for: auto)" in caplog.text
    with pytest.raises(LoaderError, match="DALI is not installed: pip install"):
        make_decoder("dali")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libdali_core.so: cannot open shared object file"),
        ModuleNotFoundError("No module named 'nvidia.dali.backend'", name="nvidia.dali.backend"),
        OSError("libcudart.so.13: version not found"),
        AttributeError("module 'numpy' has no attribute 'bool8'"),
    ],
)
def test_a_broken_dali_is_an_error_and_never_another_decoder(importing_dali, error):
    importing_dali(error)
    for name in ("auto", "dali"):
        with pytest.raises(LoaderError, match=r"cannot be imported.*reinstall") as caught:
            make_decoder(name)
        assert str(error) in str(caught.value)
    assert make_decoder("pillow").name == "pillow"


@needs_dali
def test_dali_that_cannot_start_is_an_error_in_one_line(view, tiny_store, monkeypatch):
    from nvidia.dali import Pipeline

    assert make_decoder("auto").name == "dali"

    def build(self):
        raise RuntimeError("Critical error when building pipeline:\n  out of memory")

    monkeypatch.setattr(Pipeline, "build", build)
    with pytest.raises(LoaderError, match=r"DALI cannot start on cpu: .*: out of memory; choose"):
        batches(view, tiny_store, train=True, decoder="dali")


@pytest.mark.parametrize(
    ("processes", "threads"),
    [(None, 6), ("1", 6), ("2", 3), ("4", 1), ("50", 1), ("0", 6), ("many", 6)],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_processes_of_a_machine_divide_its_processors(decoder, processes, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    made = make_decoder(decoder)
    assert made._pool.get()._max_workers == threads
    if decoder == "dali":
        assert made._threads == threads
    made.close()


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0, 0, 0), (1, 1, 1)),
        ([0, 0.5, 1], [1, 2, 3]),
        (np.zeros(3, np.int64), np.ones(3, np.float32)),
        (torch.zeros(3), (np.float64(1), np.int8(2), 3)),
    ],
)
def test_mean_and_std_may_be_any_three_numbers(view, tiny_store, mean, std):
    presets = [
        TransformPreset(Unchanged(), Unchanged(), mean, std),
        TransformPreset(Unchanged(), Unchanged(), *(tuple(map(float, x)) for x in (mean, std))),
    ]
    assert presets[0] == presets[1]
    found, expected = (batches(view, tiny_store, transforms=p, train=False)[0] for p in presets)
    assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"mean": 0}, r"mean 0 of a transform is not three numbers"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"mean": [[0, 0, 0]]}, "three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "three numbers"),
        ({"mean": ("0", "0", "0")}, "three numbers"),
        ({"mean": None}, "three numbers"),
        ({"mean": (0, [1], 2)}, "three numbers"),
        ({"mean": (124, 116, 104)}, "divide it by 255"),
        ({"std": (1, 1, 1, 1)}, r"std \(1, 1, 1, 1\) of a transform is not three numbers"),
        ({"std": (1, 0, 1)}, "not positive"),
        ({"std": np.array([1, -1, 1])}, "not positive"),
    ],
)
def test_impossible_means_and_deviations_are_refused(values, problem):
    with pytest.raises(LoaderError, match=problem):
        TransformPreset(Unchanged(), Unchanged(), **{"mean": CIFAR.mean, "std": CIFAR.std} | values)


def test_an_unknown_decoder_is_refused(view, tiny_store):
    with pytest.raises(LoaderError, match="unknown decoder"):
        make_loader(view, tiny_store, transforms=CIFAR, train=True, decoder="fast")  # type: ignore


def test_former_names_of_decoders_are_read(view, tiny_store):
    expected = batches(view, tiny_store, train=True, decoder="pillow")
    for former in (make_engine("torch"), "torch"):
        found = batches(view, tiny_store, train=True, engine=former)
        assert torch.equal(found[0].images, expected[0].images)
    assert make_engine("torch").name == "pillow"


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or "dali" not in DECODERS, reason="needs a GPU and DALI"
)
def test_gpu_decoding_is_close_to_pillows(photographs):
    options = {"train": True, "normalize": False, "transforms": IMAGENET}
    view = everything(photographs)
    for ours, other in zip(
        batches(view, photographs, decoder="dali", device="cuda", **options),
        batches(view, photographs, decoder="pillow", **options),
        strict=True,
    ):
        assert ours.images.device.type == "cuda"
        assert (ours.images.cpu().float() - other.images.float()).abs().mean() < 3
