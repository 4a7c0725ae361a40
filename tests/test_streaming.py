"""Remote shards read by blocks: fetched ahead, checked, cached within a limit, evicted."""

import errno
import os
import pickle
import shutil
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.commands.index import index_shards
from iirc_data.errors import ShardError
from iirc_data.loader import make_decoder, make_loader
from iirc_data.locks import sole_writer_of
from iirc_data.order import bounded_order
from iirc_data.shards import (
    ShardStore,
    addresses,
    blocks,
    cache_folder,
    fetching,
    write_shards,
)
from iirc_data.shards.blocks import (
    BLOCKS_NAME,
    BlockChecksums,
    block_layout,
    blocks_of_dataset,
    checksums_of,
)
from iirc_data.shards.direct import Direct
from iirc_data.shards.reading_plan import Plan
from iirc_data.shards.sharing import publish, pull
from iirc_data.shards.verify import verify
from iirc_data.shards.web import WebClient
from iirc_data.sources import open_folder
from iirc_train import train
from tests.conftest import write_image_folder
from tests.faults.lost_readers import TREE, cached_bytes
from tests.faults.reading import BLOCK_SIZE as BLOCK
from tests.faults.reading import everything as view_of
from tests.processes import wait_for
from tests.range_server import RangeServer, serving

pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> ShardStore:
    """A dataset of some forty blocks, most shards of several."""
    folder = tmp_path_factory.mktemp("streamed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_SIZE", BLOCK)
        write_shards(open_folder(write_image_folder(folder / "images", TREE)), folder / "shards")
    return ShardStore.open(folder / "shards")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setattr(blocks, "BLOCK_SIZE", BLOCK)
    monkeypatch.setattr(addresses, "_SECONDS_BETWEEN_ATTEMPTS", 0.001)
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IIRC_CACHE_SIZE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(local) -> Iterator[RangeServer]:
    with serving(local.root) as server:
        yield server


def contents(store: ShardStore, ids=None) -> list[bytes]:
    return [store.read(int(i)).tobytes() for i in (range(len(store)) if ids is None else ids)]


# --- blocks -----------------------------------------------------------------------------------


def test_blocks_are_runs_of_whole_samples_and_together_the_shards(local):
    layout = blocks_of_dataset(local.table, local.manifest)
    assert len(layout) > 3 * len(local.manifest.shards)
    for number, shard in enumerate(local.manifest.shards):
        own = np.flatnonzero(layout.shard == number)
        assert layout.start[own[0]] == 0
        assert layout.stop[own[-1]] == shard.bytes
        assert (layout.stop[own[:-1]] == layout.start[own[1:]]).all()
    which = layout.of_samples(np.arange(len(local)))
    table = local.table
    assert (layout.shard[which] == table.shard).all()
    assert (layout.start[which] <= table.offset - 512).all()
    assert (table.offset + table.size <= layout.stop[which]).all()
    assert (layout.stop - layout.start).max() < BLOCK + table.size.max() + 1536 + 10240


def test_tables_in_another_order_than_the_bytes_have_one_block_per_shard(local):
    columns = {name: getattr(local.table, name).copy() for name in blocks_columns(local)}
    columns["offset"][[0, 1]] = columns["offset"][[1, 0]]
    table = type(local.table).from_columns(columns)
    assert len(block_layout(table, local.manifest, BLOCK)) == len(local.manifest.shards)


def blocks_columns(store: ShardStore) -> list[str]:
    return ["shard", "offset", "size", "class_id", "height", "width", "mode"]


def test_sharding_writes_the_checksums_that_reading_the_shards_gives(local):
    found = BlockChecksums.load(local.root / BLOCKS_NAME, local.manifest, "it")
    expected = checksums_of(local.root, local.table, local.manifest)
    assert found.block_size == expected.block_size == BLOCK
    assert (found.sha256 == expected.sha256).all()
    assert "blocks_sha256" not in (local.root / "manifest.json").read_text()
    assert verify(local.root).problems == []


def test_checksums_of_other_shards_and_damaged_ones_are_refused(local, tmp_path):
    path = tmp_path / BLOCKS_NAME
    text = (local.root / BLOCKS_NAME).read_bytes()
    for position in range(0, len(text), 97):
        damaged = bytearray(text)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        try:
            found = BlockChecksums.load(path, local.manifest, "it")
        except ShardError:
            continue
        assert found.digest(local.manifest) == checksums_of(
            local.root, local.table, local.manifest
        ).digest(local.manifest)
    other = local.manifest.model_copy(update={"table_sha256": "0" * 64})
    with pytest.raises(ShardError, match="does not match its manifest"):
        BlockChecksums.load(local.root / BLOCKS_NAME, other, "it")
    pinned = local.manifest.model_copy(update={"blocks_sha256": "0" * 64})
    with pytest.raises(ShardError, match="does not match its manifest"):
        BlockChecksums.load(local.root / BLOCKS_NAME, pinned, "it")
    assert pinned.compute_digest() == local.manifest.digest


def test_index_adds_checksums_to_an_older_dataset_and_pins_them_if_asked(local, tmp_path):
    root = shutil.copytree(local.root, tmp_path / "shards")
    (root / BLOCKS_NAME).unlink()
    before = (root / "manifest.json").read_bytes()
    index_shards(root)
    assert (root / BLOCKS_NAME).read_bytes() == (local.root / BLOCKS_NAME).read_bytes()
    assert (root / "manifest.json").read_bytes() == before
    index_shards(root, pin=True)
    pinned = ShardStore.open(root)
    assert pinned.digest == local.digest
    assert len(pinned.manifest.blocks_sha256) == 64
    with serving(root) as server:
        assert contents(ShardStore.open(server.url)) == contents(local)
    (root / BLOCKS_NAME).unlink()
    with serving(root) as server, pytest.raises(ShardError, match=BLOCKS_NAME):
        ShardStore.open(server.url, cache=tmp_path / "empty")


def test_checksums_go_where_the_dataset_goes(local, server, tmp_path):
    pull(server.url, tmp_path / "pulled")
    publish(local.root, "memory://streamed")
    pull("memory://streamed", tmp_path / "published")
    for copy in ("pulled", "published"):
        copied = (tmp_path / copy / BLOCKS_NAME).read_bytes()
        assert copied == (local.root / BLOCKS_NAME).read_bytes()


# --- reading by blocks ------------------------------------------------------------------------


def test_few_images_of_a_large_shard_bring_their_blocks_only(local, server):
    store = ShardStore.open(server.url)
    ids = [0, 1, 50]
    assert contents(store, ids) == contents(local, ids)
    layout = local.blocks
    needed = np.unique(layout.of_samples(np.array(ids)))
    ranges = [
        (f"/{local.manifest.shards[layout.shard[b]].path}", layout.start[b], layout.stop[b])
        for b in needed
    ]
    assert server.shard_ranges() == ranges
    assert store.fetched_bytes == sum(stop - start for _, start, stop in ranges)
    assert local.name(50).rpartition("/")[2] == store.name(50).rpartition("/")[2]
    assert len(server.shard_ranges()) == len(ranges)


def test_everything_is_fetched_once_and_stays(local, server):
    store = ShardStore.open(server.url)
    assert contents(store) == contents(local)
    assert store.fetched_bytes == sum(shard.bytes for shard in local.manifest.shards)
    assert contents(ShardStore.open(server.url)) == contents(local)
    assert contents(pickle.loads(pickle.dumps(store))) == contents(local)
    assert max(Counter(server.shard_ranges()).values()) == 1


@pytest.mark.parametrize("lacks", ["checksums", "ranges"])
def test_without_checksums_or_ranges_whole_shards_are_fetched(local, tmp_path, lacks):
    shutil.copytree(local.root, tmp_path / "shards")
    if lacks == "checksums":
        (tmp_path / "shards" / BLOCKS_NAME).unlink()
    with serving(tmp_path / "shards") as server:
        server.has_ranges = lacks == "checksums"
        store = ShardStore.open(server.url)
        assert contents(store) == contents(local)
        assert store.fetched_bytes >= sum(shard.bytes for shard in local.manifest.shards)
        whole = {(f"/{s.path}", 0, s.bytes) for s in local.manifest.shards}
        assert set(server.shard_ranges()) == whole


def test_whole_shards_of_an_earlier_release_serve_from_the_cache(local, server):
    store = ShardStore.open(server.url)
    for shard in local.manifest.shards:
        (store.root / shard.path).parent.mkdir(exist_ok=True)
        shutil.copy(local.root / shard.path, store.root / shard.path)
    assert contents(store) == contents(local)
    assert server.shard_ranges() == []


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["cut", "slow", "shorter", "wrong bytes", "other range", "429", "503", "408"]
)
def test_a_fault_that_passes_is_not_noticed(local, server, monkeypatch, fault):
    if fault == "slow":
        monkeypatch.setattr(addresses, "SECONDS_OF_SILENCE", 0.2)
    store = ShardStore.open(server.url)
    for shard in local.manifest.shards:
        server.faults[f"/{shard.path}"] = deque([fault] * 2)
    ids = np.arange(0, len(local), 20)
    assert contents(store, ids) == contents(local, ids)


def first_of_a_large_shard(store: ShardStore) -> tuple[int, str]:
    """Return a sample in the middle of a shard of several blocks, and the shard's path."""
    sample = store.manifest.split_rows("train").start + 20
    return sample, f"/{store.manifest.shards[store.table.shard[sample]].path}"


def test_a_cut_transfer_resumes_where_it_stopped(local, server):
    store = ShardStore.open(server.url)
    sample, path = first_of_a_large_shard(local)
    server.faults[path] = deque(["cut"] * 3)
    assert contents(store, [sample]) == contents(local, [sample])
    layout = local.blocks
    block = int(layout.of_samples(np.array([sample]))[0])
    start, stop = int(layout.start[block]), int(layout.stop[block])
    expected = [start]
    for _ in range(3):
        expected.append(expected[-1] + (stop - expected[-1]) // 2)
    assert [first for _, first, _ in server.shard_ranges()] == expected
    assert store.fetched_bytes == stop - start


def test_a_server_that_says_when_to_come_back_is_obeyed(local, server, monkeypatch):
    waits = []
    monkeypatch.setattr(addresses.time, "sleep", waits.append)
    sample, path = first_of_a_large_shard(local)
    server.faults[path] = deque(["429 7", "503 3", "503"])
    assert contents(ShardStore.open(server.url), [sample]) == contents(local, [sample])
    assert waits[:2] == [7.0, 3.0]
    assert 0 < waits[2] < 1


@pytest.mark.parametrize(
    "faults, message",
    [
        (["wrong bytes"], "does not match its checksum in blocks.npz"),
        (["other size"], "the manifest says"),
        (["503"], "503"),
        (["403"], "403"),
        (["cut", "503"], "503"),
    ],
)
def test_a_fault_that_stays_is_an_error_with_the_address(local, server, faults, message):
    store = ShardStore.open(server.url)
    sample, path = first_of_a_large_shard(local)
    server.faults[path] = deque(faults + faults[-1:] * 50)
    with pytest.raises(ShardError, match=message) as caught:
        store.read(sample)
    assert f"{server.url}{path}" in str(caught.value)
    assert list(store.root.rglob("*.partial")) == []
    server.faults.clear()
    assert contents(store, [sample]) == contents(local, [sample])


# --- fetching ahead ---------------------------------------------------------------------------


def test_a_plan_fetches_several_blocks_ahead_of_the_reader(local, server):
    server.delay = 0.05
    store = ShardStore.open(server.url)
    ids = np.random.default_rng(0).permutation(len(local))
    plan = store.plan(ids)
    total = sum(shard.bytes for shard in local.manifest.shards)
    wait_for(lambda: store.fetched_bytes == total)
    assert server.most_at_once > 1
    assert contents(store, ids) == contents(local, ids)
    plan.close()
    assert max(Counter(server.shard_ranges()).values()) == 1


def test_what_is_expected_later_is_fetched_after_what_a_plan_needs(local, server):
    store = ShardStore.open(server.url)
    now, later = np.arange(20), np.arange(len(local) - 20, len(local))
    plan = store.plan(now)
    store.expect(later)
    layout = local.blocks
    needed = np.unique(layout.of_samples(np.r_[now, later]))
    wait_for(lambda: store.fetched_bytes == int((layout.stop - layout.start)[needed].sum()))
    plan.close()
    assert len(server.shard_ranges()) == len(needed)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_plans_window_is_the_distinct_blocks_to_come_within_its_bytes(data):
    sizes = np.array(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=8)), np.int64)
    order = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=40))
    most = data.draw(st.integers(1, 30))
    plan = Plan(np.array(order, np.int64), sizes, most, 1)
    done, steps = 0, [0, *data.draw(st.lists(st.integers(0, 7), max_size=30))]
    for step in steps:
        new = plan.advance(step)
        done = min(done + step, len(order))
        window = set(plan)
        assert set(new) <= window
        expected: list[int] = []
        for block in order[done:]:
            if block not in expected:
                if expected and sizes[expected].sum() + sizes[block] > most:
                    break
                expected.append(block)
        assert set(expected) == window


class OneByOne:
    """A decoder that asks for a batch only when it is wanted."""

    def __init__(self) -> None:
        self._decoder = make_decoder("pillow", threads=1)

    def __getattr__(self, name: str):
        return getattr(self._decoder, name)

    def images(self, requests):
        for request in requests:
            yield from self._decoder.images([request])


@pytest.mark.parametrize("is_last", [False, True])
def test_the_next_epoch_is_fetched_ahead_while_the_last_batches_of_an_epoch_are_used(
    local, server, tiny_benchmark, is_last
):
    view = view_of(local)
    blocks_of_view = local.blocks.of_samples(view.sample_ids)

    def first_block(seed: int, epoch: int) -> int:
        order = bounded_order(blocks_of_view, budget=3, seed=seed, epoch=epoch)
        return int(blocks_of_view[order[0]])

    # a block that both epochs begin with is evicted before the end of the first
    seed = next(n for n in count() if first_block(n, 0) == first_block(n, 1))
    total = sum(shard.bytes for shard in local.manifest.shards)
    store = ShardStore.open(server.url, cache_size=total // 3)
    loader = make_loader(
        view,
        store,
        transforms=tiny_benchmark.image_preset,
        train=True,
        batch_size=8,
        seed=seed,
        order="bounded",
        order_blocks=3,
        decoder=OneByOne(),
        resident=False,
    )
    ids = loader.ids_of_epoch(1)
    assert local.blocks.of_samples(ids[:1]) == first_block(seed, 0)
    loader.set_epoch(0, is_last=is_last)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)

    def asked_twice() -> set[tuple[str, int, int]]:
        return {asked for asked, n in Counter(server.shard_ranges()).items() if n > 1}

    if is_last:
        assert asked_twice() == set()
    else:
        block = first_block(seed, 1)
        path = f"/{local.manifest.shards[local.blocks.shard[block]].path}"
        first = path, int(local.blocks.start[block]), int(local.blocks.stop[block])
        wait_for(lambda: first in asked_twice())
        batches.close()
        loader.set_epoch(1, is_last=True)
        assert np.concatenate([batch.sample_ids for batch in loader]).tolist() == ids.tolist()


def test_a_block_is_read_before_it_is_saved_and_named_afterwards(local, server, monkeypatch):
    store = ShardStore.open(server.url)
    may_save = threading.Event()
    monkeypatch.setattr(cache_folder, "sync_file", lambda descriptor: may_save.wait(20))
    assert contents(store) == contents(local)
    assert list(store.root.rglob("[0-9]*-[0-9]*")) == []
    assert list(store.root.rglob("*.partial")) != []
    may_save.set()
    store.close()
    assert len(list(store.root.rglob("[0-9]*-[0-9]*"))) > 3
    assert list(store.root.rglob("*.partial")) == []
    assert contents(store) == contents(local)
    assert max(Counter(server.shard_ranges()).values()) == 1


def test_a_block_that_cannot_be_saved_is_reported_and_fetched_again(
    local, server, monkeypatch, caplog
):
    store = ShardStore.open(server.url)

    is_read = threading.Event()

    def broken(descriptor: int) -> None:
        is_read.wait(20)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(cache_folder, "sync_file", broken)
        assert contents(store, [40]) == contents(local, [40])
        is_read.set()
        store.close()
    assert "Input/output error" in caplog.text
    assert list(store.root.rglob("*.partial")) == []
    assert contents(store, [40]) == contents(local, [40])
    assert len(server.shard_ranges()) == 2


def test_a_plan_knows_whether_the_next_samples_would_have_to_be_waited_for(local, server):
    store = ShardStore.open(server.url)
    ids = np.arange(len(local))
    layout = local.blocks
    first = int((layout.of_samples(ids) == 0).sum())
    store.read(0)
    plan = store._cached._lookahead.plan(layout.of_samples(ids[:0]))  # fetches nothing
    plan._plan = Plan(layout.of_samples(ids), layout.stop - layout.start, 1, 1)
    assert plan.is_ready(first)
    assert not plan.is_ready(first + 1)
    store.read(first)
    assert plan.is_ready(first + 1)


def test_s3_addresses_are_signed_for_the_web_client_unless_the_server_refuses_them(
    local, server, monkeypatch
):
    s3 = SimpleNamespace(
        sign=lambda place, expiration: f"{server.url}/{place.partition('/')[2]}?signed",
        cat_file=lambda place, start, end: files[place][start:end],
    )
    files = {f"lab/{s.path}": (local.root / s.path).read_bytes() for s in local.manifest.shards}
    monkeypatch.setattr(fetching, "place_of", lambda address, path: (s3, f"lab/{path}"))
    monkeypatch.setattr(fetching, "AsyncFileSystem", SimpleNamespace)
    asked: list[str] = []
    get = WebClient.get
    monkeypatch.setattr(
        WebClient, "get", lambda self, url, h: asked.append(url) or get(self, url, h)
    )
    shard = local.manifest.shards[0]
    for status, n_asked in (("", 2), ("403", 1)):
        direct = Direct()
        if status:
            server.faults[f"/{shard.path}?signed"] = deque([status])
        asked.clear()
        for start, stop in ((0, 600), (512, 1024)):
            found = bytearray()
            fetching.fetch_range(
                found.extend, "s3://lab", shard.path, start, stop, shard.bytes, direct=direct
            )
            assert bytes(found) == files[f"lab/{shard.path}"][start:stop]
        assert len(asked) == n_asked


def test_an_abandoned_epoch_ends_its_plan(local, server, tiny_benchmark):
    store = ShardStore.open(server.url)
    view = view_of(store)
    loader = make_loader(
        view,
        store,
        transforms=tiny_benchmark.image_preset,
        train=True,
        batch_size=8,
        decoder="pillow",
    )
    batches = iter(loader)
    next(batches)
    batches.close()
    wait_for(lambda: not store._cached._lookahead._plans)


# --- the cache --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["exact", "bounded"])
def test_training_through_a_small_cache_gives_the_right_images_and_never_exceeds_it(
    local, server, tiny_benchmark, tmp_path, order
):
    total = sum(shard.bytes for shard in local.manifest.shards)
    description = sum((local.root / n).stat().st_size for n in ("index.npz", "manifest.json"))
    description += (local.root / BLOCKS_NAME).stat().st_size
    limit = total // 3 + description
    store = ShardStore.open(server.url, cache_size=limit)
    most = 0
    is_over = threading.Event()

    def sample() -> None:
        nonlocal most
        while not is_over.is_set():
            with sole_writer_of(tmp_path / "cache" / "usage"):  # a moment, not a walk in time
                most = max(most, cached_bytes(tmp_path / "cache"))
            time.sleep(0.1)

    sampler = threading.Thread(target=sample)
    sampler.start()
    settings = {
        "transforms": tiny_benchmark.image_preset,
        "train": True,
        "batch_size": 8,
        "order": order,
        "order_blocks": 3,
        "decoder": "pillow",
        "resident": False,
    }
    try:
        for epoch in range(2 if order == "bounded" else 1):
            streamed, expected = (make_loader(view_of(s), s, **settings) for s in (store, local))
            streamed.set_epoch(epoch)
            expected.set_epoch(epoch)
            ids = []
            for batch, right in zip(streamed, expected, strict=True):
                assert (batch.images == right.images).all()
                assert (batch.sample_ids == right.sample_ids).all()
                ids += batch.sample_ids.tolist()
            assert sorted(ids) == sorted(view_of(local).sample_ids.tolist())
    finally:
        is_over.set()
        sampler.join()
    assert 0 < most <= limit
    if order == "bounded":
        assert store.fetched_bytes <= 2.2 * total


def forked(function, *arguments) -> int:
    """Call a function in a forked process, which exits with 0 if it returns; return its number."""
    process = os.fork()  # a new interpreter would import torch for seconds
    if process == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return process


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def read_in_order(url: str, cache: Path, limit: int, seed: int, expected: list[bytes]) -> None:
    blocks.BLOCK_SIZE = BLOCK
    store = ShardStore.open(url, cache=cache, cache_size=limit)
    ids = np.random.default_rng(seed).permutation(len(store))[:40]
    plan = store.plan(ids)
    for sample_id in ids.tolist():
        assert store.read(sample_id).tobytes() == expected[sample_id]
        plan.advance(1)
    plan.close()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_share_a_small_cache_and_stay_within_its_limit(local, server, tmp_path):
    total = sum(shard.bytes for shard in local.manifest.shards)
    limit, cache = total // 2, tmp_path / "shared cache"
    cache.mkdir()
    expected = contents(local)
    processes = [
        forked(read_in_order, server.url, cache, limit, seed, expected) for seed in range(2)
    ]
    most = 0
    for process in processes:
        while (ended := os.waitpid(process, os.WNOHANG)) == (0, 0):
            with sole_writer_of(cache / "usage"):
                most = max(most, cached_bytes(cache))
            time.sleep(0.1)
        assert ended[1] == 0
    assert 0 < most <= limit


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_what_its_parent_has_announced(local, server):
    store = ShardStore.open(server.url)
    plan = store.plan(np.arange(len(local)))
    expected = contents(local)
    child = forked(lambda: [contents(store).index(data) for data in expected])
    assert os.waitpid(child, 0)[1] == 0
    plan.close()
    assert contents(store) == expected


def test_a_run_on_remote_shards_gives_the_metrics_of_a_run_on_local_ones(
    tiny_store, tiny_settings, tmp_path
):
    root = shutil.copytree(tiny_store.root, tmp_path / "shards")
    blocks.write_checksums(root, tiny_store.table, tiny_store.manifest)
    total = sum(shard.bytes for shard in tiny_store.manifest.shards)
    settings = {
        **tiny_settings,
        "method": "finetune",
        "order": "bounded",
        "order_blocks": 3,
        "resident": False,
        "cache_size": str(total // 2),
        "threads": 1,
    }
    with serving(root) as server:
        for name, data in {"local": str(root), "remote": server.url}.items():
            train({**settings, "data": data}, tmp_path / name, progress=False)
        assert server.shard_ranges()
    found = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("local", "remote")]
    assert found[0] == found[1]
    assert cached_bytes(tmp_path / "cache") <= total // 2
