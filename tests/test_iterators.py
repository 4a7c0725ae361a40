"""Iterators that live at the same time: each shows what it would show alone."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from iirc_data.augment import (
    Changed,
    ColorJitter,
    RandomCropFlip,
    RandomResizedCropFlip,
    TransformPreset,
    Unchanged,
)
from iirc_data.errors import LoaderError
from iirc_data.loader import host_memory, make_decoder, make_loader
from iirc_data.loader.idle import Idle
from iirc_data.shards import ShardStore
from iirc_data.shards.reading_plan import NoPlan
from tests.test_loader import DECODERS, RESIDENT, Memories, everything, needs_dali, noise_image

CROPPED = TransformPreset(RandomCropFlip(), Unchanged(), (0.5,) * 3, (0.5,) * 3)
COLOURED = TransformPreset(
    Changed(RandomCropFlip(), (ColorJitter(brightness=0.4),)),
    Unchanged(),
    (0.5,) * 3,
    (0.5,) * 3,
)
RESIZED = TransformPreset(RandomResizedCropFlip(size=20), Unchanged(), (0.5,) * 3, (0.5,) * 3)

decoders = pytest.mark.parametrize("decoder", DECODERS)


def make_loaders(store, decoder):
    """Loaders that ask a decoder for much the same, and for other things."""
    view = everything(store).subset(np.arange(0, 60, 2))
    memories = Memories([noise_image(900 + i) for i in range(7)], [[0, -1]] * 7)
    make = partial(make_loader, view, store, transforms=CROPPED, train=True, decoder=decoder)
    return [
        make(batch_size=7, resident=False),
        make(batch_size=7, resident=False, seed=1, normalize=False),
        make(batch_size=4, resident=False, replay=memories),
        make(batch_size=7, resident=False, transforms=RESIZED),
        make(batch_size=9, resident=False, train=False),
        make(batch_size=7, resident=True),
        make(batch_size=7, resident=False, transforms=COLOURED),
    ]


def same(batch, other):
    return torch.equal(batch.sample_ids, other.sample_ids) and torch.equal(
        batch.images, other.images
    )


@pytest.fixture(scope="module", params=DECODERS)
def loaders_and_what_they_show(request, tiny_store):
    """Loaders that share one decoder; for each, and each of two epochs, what it shows alone."""
    alone = []
    for number in range(len(make_loaders(tiny_store, "pillow"))):
        loader = make_loaders(tiny_store, make_decoder(request.param, threads=1))[number]
        epochs = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            epochs.append(list(loader))
        alone.append(epochs)
    return make_loaders(tiny_store, make_decoder(request.param, threads=2)), alone


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 6), st.integers(0, 1)),
        st.tuples(st.just("go on"), st.integers(0, 9), st.integers(1, 3)),
        st.tuples(st.sampled_from(["close", "forget"]), st.integers(0, 9), st.just(0)),
    ),
    min_size=10,
    max_size=40,
)


@given(STEPS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_iterators_interleaved_at_random_show_what_each_shows_alone(
    loaders_and_what_they_show, steps
):
    loaders, alone = loaders_and_what_they_show
    live, held = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_memory, "_SMALL", 0)  # so that batches take turns in the same memory
        for step, number, argument in steps:
            if step == "begin":
                loaders[number].set_epoch(argument)
                live.append((iter(loaders[number]), iter(alone[number][argument])))
            elif live and step == "go on":
                found, expected = live[number % len(live)]
                held += [(next(found, None), next(expected, None)) for _ in range(argument)]
            elif live:
                found, _ = live.pop(number % len(live))
                if step == "close":
                    found.close()
                del found
        for found, expected in live:
            held += zip(found, expected, strict=True)
    for found, expected in held:
        assert (found is None) == (expected is None)
        assert found is None or same(found, expected)


def test_iterators_in_threads_show_what_each_shows_alone(loaders_and_what_they_show):
    loaders, alone = loaders_and_what_they_show
    for loader in loaders:
        loader.set_epoch(1)
    wrong, together = [], threading.Barrier(2 * len(loaders))

    def read(number):
        together.wait()
        for _ in range(3):
            shown = zip(loaders[number], alone[number][1], strict=True)
            wrong.extend(number for found, expected in shown if not same(found, expected))
            next(iter(loaders[number]))
        wrong.append("none")

    threads = [
        threading.Thread(target=read, args=(number,))
        for number in range(len(loaders))
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == ["none"] * len(threads)


@RESIDENT
@decoders
def test_an_iterator_shows_the_epoch_chosen_when_it_was_made(tiny_store, decoder, resident):
    loader = make_loaders(tiny_store, decoder)[5 if resident else 0]
    expected = list(loader)
    made = iter(loader)
    loader.set_epoch(1, first_batch=2)
    assert all(same(*pair) for pair in zip(made, expected, strict=True))


class Given(IterableDataset):
    """What a user wraps a loader in, to iterate in another process."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def in_forked_process(batches):
    workers = DataLoader(
        Given(batches), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=30
    )
    return list(workers)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start new processes")
@pytest.mark.parametrize("number", [0, 5, 6], ids=["streamed", "resident", "coloured"])
@decoders
def test_a_forked_process_shows_the_same_batches(tiny_store, decoder, number):
    loader = make_loaders(tiny_store, decoder)[number]
    expected = list(loader)
    live = iter(loader)
    assert same(next(live), expected[0])
    assert all(same(*pair) for pair in zip(in_forked_process(loader), expected, strict=True))
    assert all(same(*pair) for pair in zip(in_forked_process(live), expected[1:], strict=True))
    assert all(same(*pair) for pair in zip(live, expected[1:], strict=True))


@RESIDENT
@decoders
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_loader_show_the_same_batches(tiny_store, decoder, resident, copied):
    loader = make_loaders(tiny_store, decoder)[5 if resident else 2]
    loader.set_epoch(1)
    expected = list(loader)
    assert all(same(*pair) for pair in zip(copied(loader), expected, strict=True))


@decoders
def test_batches_are_handed_out_while_the_data_of_a_later_one_is_on_its_way(
    tiny_store, decoder, monkeypatch
):
    read: list[int] = []

    class Late(NoPlan):
        def is_ready(self, n: int) -> bool:
            return len(read) < 2

    read_many = ShardStore.read_many
    monkeypatch.setattr(ShardStore, "plan", lambda self, ids: Late())
    monkeypatch.setattr(
        ShardStore, "read_many", lambda self, ids: read.append(len(ids)) or read_many(self, ids)
    )
    loader = make_loaders(tiny_store, decoder)[0]
    batches = iter(loader)
    found = [next(batches), next(batches)]
    assert read == [7, 7]
    found += batches
    monkeypatch.undo()
    assert all(same(*both) for both in zip(found, loader, strict=True))


@pytest.mark.parametrize("numbers", [(-1,), (0, -1)])
def test_an_epoch_or_batch_below_0_is_refused(tiny_store, numbers):
    loader = make_loaders(tiny_store, "torch")[0]
    with pytest.raises(ValueError, match="expected epoch, first_batch >= 0, got"):
        loader.set_epoch(*numbers)


@RESIDENT
@pytest.mark.parametrize("endless", [False, True])
def test_a_process_has_samples_in_every_batch_or_there_is_no_loader(tiny_store, endless, resident):
    def make(n, batch_size=4, world_size=1):
        return make_loader(
            everything(tiny_store).subset(np.arange(n)),
            tiny_store,
            transforms=CROPPED,
            train=True,
            decoder="pillow",
            resident=resident and n > 0,
            endless=endless,
            batch_size=batch_size,
            rank=world_size - 1,
            world_size=world_size,
        )

    assert list(make(0, world_size=2)) == []
    assert [len(batch.images) for batch in make(2, world_size=2)] == [1]
    with pytest.raises(LoaderError, match="1 samples cannot be divided among 2 processes"):
        make(1, world_size=2)
    with pytest.raises(ValueError, match="batch_size >= 1"):
        make(8, batch_size=0)


@pytest.fixture
def pipelines(monkeypatch):
    """A set of all DALI pipelines that are alive."""
    from iirc_data.loader import dali

    alive = weakref.WeakSet()

    class Counted(dali.DaliPipeline):
        def __init__(self, *args):
            super().__init__(*args)
            alive.add(self)

    monkeypatch.setattr(dali, "DaliPipeline", Counted)
    return alive


@needs_dali
def test_there_are_as_many_pipelines_as_live_iterators_and_a_few_idle_ones(tiny_store, pipelines):
    loader = make_loaders(tiny_store, make_decoder("dali", threads=1))[0]
    live = [iter(loader) for _ in range(7)]
    assert len(list(map(next, live))) == len(pipelines) == 7
    live.clear()
    gc.collect()
    kept = set(pipelines)
    assert len(kept) == 4
    assert len(list(loader)) == len(loader)
    assert set(pipelines) == kept


@needs_dali
@pytest.mark.parametrize("method", ["feed_input", "schedule_run", "share_outputs"])
def test_a_pipeline_that_was_interrupted_serves_no_other_iterator(
    tiny_store, pipelines, monkeypatch, method
):
    from nvidia.dali import Pipeline

    loader = make_loaders(tiny_store, make_decoder("dali", threads=1))[0]
    expected = list(loader)
    calls, whole = [], getattr(Pipeline, method)

    def interrupted(self, *args, **options):
        calls.append(method)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(loader)
    gc.collect()
    assert not pipelines
    assert all(same(*pair) for pair in zip(loader, expected, strict=True))


@decoders
def test_a_damaged_image_ends_only_the_iterator_that_meets_it(tiny_store, decoder):
    damaged = Memories([noise_image(1)] * 3, [[0, -1]] * 3)
    damaged.encoded[1] = damaged.encoded[1][:-200]
    decoder = make_decoder(decoder)
    view = everything(tiny_store)
    fine = make_loaders(tiny_store, decoder)[0]
    expected = list(fine)
    kept = iter(fine)
    found = [next(kept)]
    with pytest.raises(LoaderError, match="memory 1"):
        list(
            make_loader(
                view,
                tiny_store,
                damaged,
                transforms=CROPPED,
                train=True,
                batch_size=7,
                resident=False,
                decoder=decoder,
            )
        )
    found += kept
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


KEPT_TO_THE_END = """
import sys
from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.loader import make_decoder, make_loader
from iirc_data.shards import ShardStore
from tests.test_loader import everything
store = ShardStore.open(sys.argv[1])
kept = []
for name in sys.argv[2:]:
    for resident in (False, True):
        for preset in ("cifar", "imagenet")[:2 - resident]:
            loader = make_loader(everything(store), store, transforms=TRANSFORM_PRESETS[preset],
                train=True, batch_size=8, resident=resident, decoder=name)
            kept.append(iter(loader))
            next(kept[-1])
"""


def test_iterators_that_are_kept_to_the_end_of_the_program_end_quietly(tiny_store):
    command = [sys.executable, "-c", KEPT_TO_THE_END, str(tiny_store.root), *DECODERS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_idle_things_are_lent_once_and_the_oldest_goes_first():
    idle = Idle[str](2)
    for thing in "abc":
        idle.put(thing)
    assert len(idle) == 2
    assert idle.take(lambda things: next((t for t in things if t != "b"), None)) == "c"
    assert idle.take(lambda things: things[0]) == "b"
    assert idle.take(lambda things: next(iter(things), None)) is None
    idle.clear()
    idle.put("d")
    assert len(idle) == 0
