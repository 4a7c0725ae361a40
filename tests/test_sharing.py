"""Sharing datasets: publish, pull, lazy fetching; interrupted at any moment, damaged on the way."""

import hashlib
import os
import pickle
import re
import shutil
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from typer.testing import CliRunner

from iirc_data.commands.data import app, parse_task_ids
from iirc_data.dataset_checks import needed_classes
from iirc_data.errors import BenchmarkError, ShardError
from iirc_data.shards import ShardStore, addresses, load_manifest, write_shards
from iirc_data.shards.parallel import for_each
from iirc_data.shards.sharing import MARKER_NAME, publish, pull
from iirc_data.shards.verify import verify
from iirc_data.sources import open_folder
from iirc_data.task_sequence import TaskSequence
from tests.conftest import write_image_folder
from tests.full_disk import space_left
from tests.processes import CONTEXT

pytest.importorskip("aiohttp")

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Server(ThreadingHTTPServer):
    """Serves a folder without ranges; can be told to misbehave for a path."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: Counter[str] = Counter()
        self.misbehaviour: dict[str, str] = {}


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        data = Path(self.translate_path(self.path))
        match self.server.misbehaviour.get(self.path):
            case None:
                super().do_GET()
            case "breaks off":
                self._send(200, data.read_bytes()[:5000], length=data.stat().st_size)
            case "breaks off once":
                del self.server.misbehaviour[self.path]
                self._send(200, data.read_bytes()[:5000], length=data.stat().st_size)
            case "shorter":
                self._send(200, data.read_bytes()[:-512])
            case "longer":
                self._send(200, data.read_bytes() + b"\0" * 512)
            case "endless":
                self._send(200, data.read_bytes(), length=1 << 40)
                for _ in range(200):
                    self.wfile.write(b"\0" * (1 << 20))
            case "altered":
                content = bytearray(data.read_bytes())
                content[700] ^= 1
                self._send(200, bytes(content))
            case status:
                self._send(int(status), b"no")

    def _send(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients go away
            super().handle()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setattr(addresses, "_SECONDS_BETWEEN_ATTEMPTS", 0.0)
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    MemoryFileSystem.store.clear()


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(tiny_store) -> Iterator[Server]:
    with serve(tiny_store.root) as server:
        yield server


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def sample_bytes(store: ShardStore) -> list[bytes]:
    return [store.read(i).tobytes() for i in range(len(store))]


def write_other_dataset(folder: Path) -> Path:
    write_image_folder(folder / "images", {"train": {"dog": 2}})
    write_shards(open_folder(folder / "images"), folder / "shards")
    return folder / "shards"


# --- pull -------------------------------------------------------------------------------------


def test_a_pull_gives_the_dataset_byte_for_byte(server, tiny_store, tmp_path):
    calls = []
    pull(server.url, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert tree(tmp_path / "out") == tree(tiny_store.root)
    total = sum(shard.bytes for shard in tiny_store.manifest.shards)
    assert calls[-1] == (total, total)


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_query_that_signs_an_address_goes_with_every_request(tiny_store, tmp_path, slash):
    with serve(tiny_store.root.parent) as server:
        folder = f"{server.url}/{tiny_store.root.name}"
        pull(f"{folder}{slash}?sig=a%2Fb+c/&se=1", tmp_path / "out")
        assert ShardStore.open(f"{folder}?sig=x").digest == tiny_store.digest
    assert tree(tmp_path / "out") == tree(tiny_store.root)
    asked = [request.partition("?") for request in server.requests]
    assert {path.rpartition("/")[2] for path, _, _ in asked} >= {"manifest.json", "index.npz"}
    assert {query for _, _, query in asked} == {"sig=a%2Fb+c/&se=1", "sig=x"}


@pytest.mark.parametrize("path", ["/manifest.json", "/index.npz", "/train/cat-000000.tar"])
@pytest.mark.parametrize("misbehaviour", ["403", "404", "503", "altered", "shorter"])
def test_what_signs_an_address_is_in_no_message(server, tmp_path, path, misbehaviour):
    query = "sig=se%2Fcret"
    server.misbehaviour[f"{path}?{query}"] = misbehaviour
    with pytest.raises(ShardError) as caught:
        pull(f"{server.url}?{query}", tmp_path / "out")
    text = "".join(traceback.format_exception(caught.value))
    assert f"{path}?…" in text
    assert "cret" not in text
    result = CliRunner().invoke(app, ["pull", f"{server.url}?{query}", str(tmp_path / "other")])
    assert result.exit_code == 1
    assert "cret" not in result.output


def test_addresses_chained_by_fsspec_keep_their_query():
    assert addresses.below("https://h/a/?b=c/d", "e/f.tar") == "https://h/a/e/f.tar?b=c/d"
    assert addresses.below("https://h/a", "e") == "https://h/a/e"
    assert addresses.below("/a?b/", "e") == "/a?b/e"
    assert addresses.below("s3://h/a?b", "e") == "s3://h/a?b/e"


@pytest.mark.parametrize("home", [None, "/dev/null"])
def test_without_a_home_the_cache_has_to_be_named(server, monkeypatch, home):
    monkeypatch.delenv("IIRC_CACHE")
    if home is None:

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(ShardError, match="set IIRC_CACHE to a"):
        ShardStore.open(server.url)


@pytest.mark.parametrize("tasks", [[0], [1], [2, 3], [0, 1, 2, 3]])
def test_a_pull_brings_exactly_the_shards_that_tasks_show(
    server, tiny_store, tiny_benchmark, tmp_path, tasks
):
    scheduled = tiny_benchmark.tasks(0)
    classes = needed_classes(tiny_benchmark, [scheduled[task] for task in tasks])
    pull(server.url, tmp_path, classes=classes)
    store = ShardStore.open(tmp_path)
    assert store.digest == tiny_store.digest
    shown = set()
    for split in ("train", "intask_valid", "posttask_valid", "test"):
        sequence = TaskSequence.from_table(tiny_benchmark, store.manifest, store.table, split)
        for sample_id in sequence.view(tasks).sample_ids.tolist():
            assert store.read(sample_id).tobytes() == tiny_store.read(sample_id).tobytes()
            shown.add(store.manifest.shards[store.table.shard[sample_id]].path)
    assert {name for name in tree(tmp_path) if name.endswith(".tar")} == shown


def test_a_superclass_needs_its_subclasses_whether_scheduled_or_not(tiny_benchmark):
    assert needed_classes(tiny_benchmark, [["animal"]]) == {"bear", "cat", "dog"}
    assert needed_classes(tiny_benchmark, [["dog"], ["tulip"]]) == {"dog", "tulip"}


def test_a_shard_that_was_not_pulled_is_named_with_what_to_do(server, tmp_path):
    pull(server.url, tmp_path, classes={"dog"})
    store = ShardStore.open(tmp_path)
    bear = store.manifest.split_rows("train").start
    with pytest.raises(ShardError, match=r"train/bear-000000\.tar is missing.*iirc data pull"):
        store.read(bear)
    found = verify(tmp_path)
    assert found.problems == []
    assert len(found.absent) == 10
    assert not any("dog" in path for path in found.absent)


def test_a_later_pull_adds_classes_without_fetching_anew(server, tiny_store, tmp_path):
    pull(server.url, tmp_path, classes={"dog"})
    pull(server.url, tmp_path)
    assert tree(tmp_path) == tree(tiny_store.root)
    assert server.requests["/train/dog-000000.tar"] == 1


@pytest.mark.parametrize("copy", ["pull", "publish"])
@pytest.mark.parametrize("damage", ["zeros", "flipped bit", "cut short", "longer", "missing"])
def test_a_shard_in_place_is_checked_and_replaced_if_it_is_damaged(
    server, tiny_store, tmp_path, copy, damage
):
    run = {
        "pull": partial(pull, server.url, tmp_path),
        "publish": partial(publish, tiny_store.root, tmp_path),
    }[copy]
    run()
    damaged = tmp_path / "train" / "dog-000000.tar"
    data = damaged.read_bytes()
    damaged.unlink()
    if damage != "missing":
        damaged.write_bytes(
            {
                "zeros": bytes(len(data)),
                "flipped bit": data[:700] + bytes([data[700] ^ 1]) + data[701:],
                "cut short": data[:-512],
                "longer": data + bytes(512),
            }[damage]
        )
    untouched = tmp_path / "train" / "cat-000000.tar"
    time_before = untouched.stat().st_mtime_ns
    calls = []
    run(progress=lambda done, total: calls.append((done, total)))
    assert tree(tmp_path) == tree(tiny_store.root)
    assert calls[-1][0] == calls[-1][1]
    assert untouched.stat().st_mtime_ns == time_before
    if copy == "pull":
        assert server.requests["/train/dog-000000.tar"] == 2
        assert server.requests["/train/cat-000000.tar"] == 1


def test_a_pull_that_broke_off_is_no_dataset_and_goes_on_when_run_again(
    server, tiny_store, tmp_path
):
    server.misbehaviour["/train/cat-000000.tar"] = "breaks off"
    with pytest.raises(ShardError, match=re.escape(f"{server.url}/train/cat-000000.tar")):
        pull(server.url, tmp_path, workers=1)
    with pytest.raises(ShardError, match="not a finished shard folder"):
        ShardStore.open(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))
    finished = [name for name in tree(tmp_path) if name.endswith(".tar")]
    assert 0 < len(finished) < 12
    server.misbehaviour.clear()
    pull(server.url, tmp_path, workers=1)
    assert tree(tmp_path) == tree(tiny_store.root)
    assert all(server.requests[f"/{name}"] == 1 for name in finished)


def test_where_one_file_fails_the_others_stop_at_once():
    def work(number: int, advance) -> None:
        if number == 0:
            raise ShardError("broken")
        for _ in range(1000):
            time.sleep(0.01)
            advance(1)

    start = time.monotonic()
    with pytest.raises(ShardError, match="broken"):
        for_each(work, range(8), workers=2, total=8, progress=lambda done, total: None)
    assert time.monotonic() - start < 5


def test_a_broken_connection_is_tried_again(server, tiny_store, tmp_path):
    server.misbehaviour["/train/cat-000000.tar"] = "breaks off once"
    calls = []
    pull(server.url, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert tree(tmp_path) == tree(tiny_store.root)
    assert calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize(
    "path, misbehaviour, problem",
    [
        ("/train/cat-000000.tar", "altered", "does not match its digest"),
        ("/train/cat-000000.tar", "shorter", "ended after 40448 of the 40960 bytes"),
        ("/train/cat-000000.tar", "longer", "longer than the expected 40960 bytes"),
        ("/train/cat-000000.tar", "endless", "longer than the expected 40960 bytes"),
        ("/train/cat-000000.tar", "404", "does not exist"),
        ("/train/cat-000000.tar", "403", "403"),
        ("/train/cat-000000.tar", "503", "503"),
        ("/index.npz", "altered", "index.npz"),
        ("/index.npz", "shorter", "index.npz"),
        ("/index.npz", "endless", "longer than the expected"),
        ("/manifest.json", "404", "is not finished"),
        ("/manifest.json", "altered", "manifest.json"),
        ("/manifest.json", "shorter", "not a valid manifest"),
    ],
)
def test_what_is_not_as_promised_is_refused_with_its_address(
    server, tmp_path, path, misbehaviour, problem
):
    server.misbehaviour[path] = misbehaviour
    with pytest.raises(ShardError, match=problem) as caught:
        pull(server.url, tmp_path / "out", workers=2)
    assert f"{server.url}{path}" in str(caught.value)
    written = tree(tmp_path / "out") if (tmp_path / "out").exists() else {}
    assert not {"manifest.json", path[1:]} & set(written)
    assert not any(name.endswith(".partial") for name in written)


def test_a_refusal_is_not_tried_again_an_overloaded_server_is(server, tmp_path):
    for status, attempts in [("403", 1), ("404", 1), ("429", 3), ("500", 3)]:
        server.requests.clear()
        server.misbehaviour["/manifest.json"] = status
        with pytest.raises(ShardError, match=r"manifest\.json"):
            pull(server.url, tmp_path)
        assert server.requests["/manifest.json"] == attempts


@pytest.mark.parametrize(
    "address, problem",
    [
        ("http://127.0.0.1:9", "cannot read http://127.0.0.1:9/manifest.json"),
        ("nonsense://somewhere", "not an address that fsspec supports"),
        ("/does/not/exist", "/does/not/exist does not exist"),
        ("memory://nothing", "is not finished"),
    ],
)
def test_an_address_without_dataset_is_refused(tmp_path, address, problem):
    with pytest.raises(ShardError, match=problem):
        pull(address, tmp_path)


def test_a_folder_that_holds_another_dataset_is_left_alone(server, tmp_path):
    other = write_other_dataset(tmp_path)
    before = tree(other)
    with pytest.raises(ShardError, match="already holds another dataset"):
        pull(server.url, other)
    assert tree(other) == before


def test_the_same_data_in_other_files_is_left_alone(server, tiny_store, tmp_path):
    shutil.copytree(tiny_store.root, tmp_path / "shards")
    tiny_store.manifest.model_copy(update={"dataset": "renamed"}).save(tmp_path / "shards")
    with pytest.raises(ShardError, match="a version of this dataset"):
        pull(server.url, tmp_path / "shards")


def test_classes_that_the_dataset_lacks_are_named(server, tmp_path):
    with pytest.raises(ShardError, match="lacks 1 of the classes: rose"):
        pull(server.url, tmp_path, classes={"dog", "rose"})


def test_a_pull_that_does_not_fit_on_the_disk_is_refused_at_once(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ShardError, match="GB are free"):
        pull(server.url, tmp_path / "out")
    assert not (tmp_path / "out").exists()


DOG_SHARDS = ("test/dog-000000.tar", "train/dog-000000.tar")


@pytest.mark.parametrize("copy", ["pull", "publish"])
@pytest.mark.parametrize("full_at", [*DOG_SHARDS, "index.npz", "manifest.json"])
def test_a_disk_that_fills_up_leaves_nothing_half_written_under_a_final_name(
    server, tiny_store, tmp_path, copy, full_at
):
    run = {
        "pull": partial(pull, server.url, tmp_path, classes={"dog"}, workers=1),
        "publish": partial(publish, tiny_store.root, tmp_path, workers=1),
    }[copy]
    shards = [shard.path for shard in tiny_store.manifest.shards]
    names = [*(DOG_SHARDS if copy == "pull" else shards), "index.npz", "manifest.json"]
    whole = tree(tiny_store.root)
    space = sum(len(whole[name]) for name in names[: names.index(full_at)]) + 100
    with (
        space_left(tmp_path, space),
        pytest.raises(
            ShardError, match=f"cannot write {tmp_path / full_at}: No space left on device"
        ),
    ):
        run()
    left = {name: data for name, data in tree(tmp_path).items() if not name.endswith(".lock")}
    assert left == {name: whole[name] for name in names[: names.index(full_at)]}
    run()
    assert tree(tmp_path) == {name: whole[name] for name in names}


def test_a_cache_on_a_full_disk_keeps_nothing_half_written(server, tiny_store, tmp_path):
    store = ShardStore.open(server.url)
    shard = store.root / store.manifest.shards[0].path
    with (
        space_left(tmp_path, 10_000),
        pytest.raises(ShardError, match=f"cannot write {shard}: No space left on device"),
    ):
        store.read(0)
    assert not list(shard.parent.iterdir())
    assert store.read(0).tobytes() == tiny_store.read(0).tobytes()


def test_class_names_with_characters_that_urls_reserve(tmp_path):
    counts = {"train": {"a #1 at 50%?": 2, "übrig & sons+": 2, "%41": 1}}
    write_shards(open_folder(write_image_folder(tmp_path / "images", counts)), tmp_path / "shards")
    with serve(tmp_path / "shards") as server:
        pull(server.url, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "shards")


# --- datasets opened by address ---------------------------------------------------------------


def test_a_dataset_opened_by_address_fetches_each_shard_once_when_it_is_read(
    server, tiny_store, tmp_path
):
    store = ShardStore.open(server.url)
    assert store.digest == tiny_store.digest
    assert set(server.requests) == {"/manifest.json", "/index.npz"}
    first = store.manifest.shards[0].path
    assert store.read(0).tobytes() == tiny_store.read(0).tobytes()
    assert set(server.requests) == {"/manifest.json", "/index.npz", f"/{first}"}
    assert sample_bytes(store) == sample_bytes(tiny_store)
    assert sample_bytes(ShardStore.open(server.url)) == sample_bytes(tiny_store)
    assert {n for path, n in server.requests.items() if path != "/manifest.json"} == {1}
    assert store.root.parent == tmp_path / "cache"
    assert tree(store.root) == tree(tiny_store.root)


def test_the_cache_folder_can_be_chosen(server, tmp_path):
    store = ShardStore.open(server.url, cache=tmp_path / "mine")
    store.read(0)
    assert store.root.parent == tmp_path / "mine"
    assert (
        store.root.name
        == hashlib.sha256(store.root.joinpath("manifest.json").read_bytes()).hexdigest()
    )
    assert not (tmp_path / "cache").exists()


def test_an_altered_shard_is_refused_before_it_is_read(server):
    store = ShardStore.open(server.url)
    path = store.manifest.shards[0].path
    server.misbehaviour[f"/{path}"] = "altered"
    with pytest.raises(ShardError, match="does not match its digest"):
        store.read(0)
    assert not (store.root / path).exists()
    server.misbehaviour.clear()
    assert len(store.read(0)) > 0


def test_a_damaged_cached_table_is_fetched_again(server, tiny_store):
    table = ShardStore.open(server.url).root / "index.npz"
    table.write_bytes(table.read_bytes()[:-100])
    assert ShardStore.open(server.url).table.digest() == tiny_store.table.digest()


def test_threads_that_share_a_cache_fetch_each_shard_once(server, tiny_store):
    with ThreadPoolExecutor(6) as executor:
        stores = [ShardStore.open(server.url) for _ in range(6)]
        for found in executor.map(sample_bytes, stores):
            assert found == sample_bytes(tiny_store)
    shards = {path: n for path, n in server.requests.items() if path.endswith(".tar")}
    assert set(shards.values()) == {1}


def read_all(url: str, cache: Path, expected: list[bytes]) -> None:
    assert sample_bytes(ShardStore.open(url, cache=cache)) == expected


def test_processes_that_share_a_cache_fetch_each_shard_once(server, tiny_store, tmp_path):
    # the cache is named: processes of the fork server have the environment that it started with
    arguments = (server.url, tmp_path / "shared cache", sample_bytes(tiny_store))
    processes = [CONTEXT.Process(target=read_all, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    shards = {path: n for path, n in server.requests.items() if path.endswith(".tar")}
    assert set(shards.values()) == {1}


def test_a_pickled_store_goes_on_reading(server, tiny_store):
    store = ShardStore.open(server.url)
    store.read(0)
    again = pickle.loads(pickle.dumps(store))
    assert sample_bytes(again) == sample_bytes(tiny_store)


# --- publish ----------------------------------------------------------------------------------


def test_what_is_published_can_be_pulled(tiny_store, tmp_path):
    publish(tiny_store.root, "memory://lab/tiny/")
    pull("memory://lab/tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tiny_store.root)
    assert not fsspec.filesystem("memory").exists(f"/lab/tiny/{MARKER_NAME}")
    assert sample_bytes(ShardStore.open("memory://lab/tiny")) == sample_bytes(tiny_store)


@pytest.mark.parametrize("address", ["memory://lab/tiny", "{}/published"])
def test_the_taxonomy_travels_with_its_dataset(tiny_store, tmp_path, address):
    shards = shutil.copytree(tiny_store.root, tmp_path / "shards")
    address, copy = address.format(tmp_path), tmp_path / "copy"

    def published_and_pulled(text, **options):
        (shards / "taxonomy.json").write_text(text)
        publish(shards, address)
        pull(address, copy, **options)
        return (copy / "taxonomy.json").read_text()

    assert published_and_pulled('{"animal": ["bear"]}') == '{"animal": ["bear"]}'
    assert tree(copy) == tree(shards)
    assert published_and_pulled('{"pet": ["dog"]}') == '{"animal": ["bear"]}'
    assert published_and_pulled('{"pet": ["dog"]}', update=True) == '{"pet": ["dog"]}'


@pytest.mark.parametrize("address", ["{}/published", "memory://lab"])
def test_a_version_without_taxonomy_does_not_take_over_that_of_another(
    tiny_store, tmp_path, address
):
    address, copy = address.format(tmp_path), tmp_path / "copy"
    first = shutil.copytree(tiny_store.root, tmp_path / "first")
    (first / "taxonomy.json").write_text('{"animal": ["bear"]}')
    publish(first, address)
    pull(address, copy)
    folder = write_image_folder(tmp_path / "images", {"train": {"cow": 2}})
    write_shards(open_folder(folder), tmp_path / "second")
    publish(tmp_path / "second", address, new_version=True)
    pull(address, copy, update=True)
    pull(address, tmp_path / "fresh")
    assert not (copy / "taxonomy.json").exists()
    assert not (tmp_path / "fresh" / "taxonomy.json").exists()


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_publishing_to_a_folder_copies_it(tiny_store, tmp_path, address):
    publish(tiny_store.root, address.format(tmp_path / "published"))
    assert tree(tmp_path / "published") == tree(tiny_store.root)


def fail_after(n: int, function, error: Exception):
    calls = count(1)

    def replacement(*arguments, **options):
        if next(calls) > n:
            raise error
        return function(*arguments, **options)

    return replacement


def test_a_publication_that_broke_off_is_no_dataset_and_goes_on_when_run_again(
    tiny_store, tmp_path, monkeypatch
):
    put_file = MemoryFileSystem.put_file
    failing = fail_after(6, put_file, ConnectionError("cable out"))  # a marker, then shards
    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)
    with pytest.raises(ShardError, match=r"cannot publish memory://lab/.*cable out"):
        publish(tiny_store.root, "memory://lab", workers=1)
    with pytest.raises(ShardError, match="is not finished"):
        ShardStore.open("memory://lab")
    counting = fail_after(7 + 2, put_file, AssertionError("what was in place is put again"))
    monkeypatch.setattr(MemoryFileSystem, "put_file", counting)
    calls = []
    publish(tiny_store.root, "memory://lab", progress=lambda done, total: calls.append(done))
    assert calls[-1] == sum(shard.bytes for shard in tiny_store.manifest.shards)
    pull("memory://lab", tmp_path)
    assert tree(tmp_path) == tree(tiny_store.root)


@pytest.mark.parametrize("written", [0, 13, 14, 15])
def test_a_publication_may_break_off_at_its_last_files(tiny_store, tmp_path, monkeypatch, written):
    # marker, 12 shards, table and manifest are put, in this order, then the marker is removed
    error = ConnectionError("cable out")
    with monkeypatch.context() as broken:
        for name, n in [("put_file", written), ("rm_file", 0)]:
            function = getattr(MemoryFileSystem, name)
            broken.setattr(MemoryFileSystem, name, fail_after(n, function, error))
        with pytest.raises(ShardError, match="cable out"):
            publish(tiny_store.root, "memory://lab")
    if written < 15:
        with pytest.raises(ShardError, match="is not finished"):
            pull("memory://lab", tmp_path)
    publish(tiny_store.root, "memory://lab")
    pull("memory://lab", tmp_path)
    assert tree(tmp_path) == tree(tiny_store.root)
    assert not fsspec.filesystem("memory").exists(f"/lab/{MARKER_NAME}")


@pytest.mark.parametrize("full_at", ["train/dog-000000.tar", "index.npz", "manifest.json"])
def test_a_remote_disk_that_fills_up_keeps_nothing_half_written(tiny_store, tmp_path, full_at):
    target = tmp_path / "out"
    order = [shard.path for shard in tiny_store.manifest.shards] + ["index.npz", "manifest.json"]
    whole = tree(tiny_store.root)
    written = [*order[: order.index(full_at)], MARKER_NAME]
    expected = {name: whole["manifest.json" if name == MARKER_NAME else name] for name in written}
    with (
        space_left(target, sum(map(len, expected.values())) + 100),
        pytest.raises(
            ShardError,
            match=f"cannot publish plainremote://{target}/{full_at}: .*No space left on device",
        ),
    ):
        publish(tiny_store.root, f"plainremote://{target}", workers=1)
    assert tree(target) == expected
    publish(tiny_store.root, f"plainremote://{target}")
    assert tree(target) == whole


@pytest.mark.parametrize("name", [MARKER_NAME, "manifest.json"])
@pytest.mark.parametrize("size", [0, 1000, -2])
def test_a_manifest_that_a_killed_publication_half_wrote_is_written_again(
    tiny_store, tmp_path, name, size
):
    filesystem = fsspec.filesystem("memory")
    whole = (tiny_store.root / "manifest.json").read_bytes()
    if name == "manifest.json":
        publish(tiny_store.root, "memory://lab")
        filesystem.pipe_file(f"/lab/{MARKER_NAME}", whole)
    filesystem.pipe_file(f"/lab/{name}", whole[:size])
    with pytest.raises(ShardError, match=r"manifest\.json"):
        pull("memory://lab", tmp_path)
    publish(tiny_store.root, "memory://lab")
    pull("memory://lab", tmp_path)
    assert tree(tmp_path) == tree(tiny_store.root)
    assert not filesystem.exists(f"/lab/{MARKER_NAME}")


def test_a_published_dataset_is_left_as_it_is_when_it_is_published_again(tiny_store, monkeypatch):
    publish(tiny_store.root, "memory://lab")
    error = AssertionError("what was in place is put again")
    put_file = fail_after(0, MemoryFileSystem.put_file, error)
    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    publish(tiny_store.root, "memory://lab")


def test_files_that_no_publication_put_there_are_not_trusted(tiny_store, tmp_path):
    filesystem = fsspec.filesystem("memory")
    shard = tiny_store.manifest.shards[0]
    filesystem.pipe_file(f"/lab/{shard.path}", bytes(shard.bytes))
    publish(tiny_store.root, "memory://lab")
    pull("memory://lab", tmp_path)
    assert tree(tmp_path) == tree(tiny_store.root)


def test_publishing_again_puts_back_what_is_missing(tiny_store, tmp_path):
    publish(tiny_store.root, "memory://lab")
    fsspec.filesystem("memory").rm_file("/lab/train/dog-000000.tar")
    publish(tiny_store.root, "memory://lab")
    pull("memory://lab", tmp_path)
    assert tree(tmp_path) == tree(tiny_store.root)


@pytest.mark.parametrize("finished", [True, False])
def test_another_dataset_at_the_address_is_left_alone(tiny_store, tmp_path, finished):
    publish(write_other_dataset(tmp_path), "memory://lab")
    filesystem = fsspec.filesystem("memory")
    if not finished:
        filesystem.mv("/lab/manifest.json", f"/lab/{MARKER_NAME}")
    before = {path: filesystem.cat_file(path) for path in filesystem.find("/lab")}
    with pytest.raises(ShardError, match="already holds another dataset"):
        publish(tiny_store.root, "memory://lab")
    assert {path: filesystem.cat_file(path) for path in filesystem.find("/lab")} == before


@pytest.mark.parametrize("address", ["memory://lab", "{}/published"])
@pytest.mark.parametrize("damage", ["altered", "cut short", "missing"])
def test_a_damaged_dataset_is_not_published(tiny_store, tmp_path, address, damage):
    root = shutil.copytree(tiny_store.root, tmp_path / "shards")
    path = root / "train" / "dog-000000.tar"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-512] if damage == "cut short" else data[:-1] + b"\1")
    address = address.format(tmp_path)
    with pytest.raises(ShardError, match=r"train/dog-000000\.tar"):
        publish(root, address)
    with pytest.raises(ShardError, match=r"is not (a )?finished|does not exist"):
        pull(address, tmp_path / "out")


def test_a_web_server_cannot_be_published_to(tiny_store):
    with pytest.raises(ShardError, match="cannot publish to a web server"):
        publish(tiny_store.root, "https://example.org/data")


# --- killed -----------------------------------------------------------------------------------


class PlainRemote(LocalFileSystem):
    """A remote file system whose files appear under their name while they are being written."""

    protocol = "plainremote"
    blocksize = 1024
    put_file = AbstractFileSystem.put_file

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("plainremote://").rstrip("/")


fsspec.register_implementation("plainremote", PlainRemote, clobber=True)


def copy_until_killed(copy, source: str, target: str, n_events: int) -> None:
    """Copy a dataset; at the given event (a chunk, mkdir, fsync or rename), kill oneself."""
    events = count(1)

    def event() -> None:
        if next(events) >= n_events:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function):
        def replacement(*arguments, **options):
            event()
            return function(*arguments, **options)

        return replacement

    addresses.CHUNK = 1024
    os.fsync = before(os.fsync)
    Path.replace = before(Path.replace)
    Path.mkdir = before(Path.mkdir)
    copy(source, target, workers=1, progress=lambda done, total: event())


def check_that_final_names_hold_whole_files(folder: Path, original: Path) -> None:
    manifest = load_manifest((original / "manifest.json").read_bytes(), "manifest")
    for shard in manifest.shards:
        path = folder / shard.path
        if path.exists():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256


@pytest.mark.parametrize("kind", ["pull", "publish to a folder", "publish to a remote"])
def test_killed_again_and_again_it_ends_with_the_same_files(server, tiny_store, tmp_path, kind):
    target = tmp_path / "out"
    copy, source, address = {
        "pull": (pull, server.url, str(target)),
        "publish to a folder": (publish, str(tiny_store.root), str(target)),
        "publish to a remote": (publish, str(tiny_store.root), f"plainremote://{target}"),
    }[kind]
    kills = kills_while_writing = 0
    for life in count(1):
        process = CONTEXT.Process(target=copy_until_killed, args=(copy, source, address, 6 * life))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        if kind == "publish to a remote":
            half = [
                s
                for s in tiny_store.manifest.shards
                if (target / s.path).exists() and (target / s.path).stat().st_size < s.bytes
            ]
        else:
            half = list(target.rglob(f".*{process.pid}.partial"))
            check_that_final_names_hold_whole_files(target, tiny_store.root)
        kills_while_writing += bool(half)
        if (target / "manifest.json").exists():  # written last
            assert verify(target).problems == []
    assert kills >= 10
    assert kills_while_writing >= kills / 2
    assert tree(target) == tree(tiny_store.root)
    assert ShardStore.open(target).digest == tiny_store.digest


# --- the documentation --------------------------------------------------------------------------


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """Return the guide's blocks of a language, in a folder that has what the guide speaks of."""
    tree = {split: dict.fromkeys(CIFAR10, 2) for split in ("train", "test")}
    images = write_image_folder(tmp_path / "cifar10", tree)
    write_shards(open_folder(images), tmp_path / "shards/cifar10")
    shutil.copy(images / "train/dog/0000.jpg", images / "train/cat/0000.jpg")
    write_shards(open_folder(images), tmp_path / "shards/cifar10-2")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "sharing.md").read_text()
    with serve(tmp_path / "shards/cifar10") as server:
        here = text.replace("https://data.our-lab.org/cifar10", server.url)
        here = here.replace("s3://", "memory://")
        here = here.replace("7d0a…c41f", ShardStore.open(tmp_path / "shards/cifar10").digest)
        yield lambda language: re.findall(rf"```{language}\n(.*?)```", here, re.DOTALL)


@pytest.mark.filterwarnings("ignore:classes show no sample")
def test_the_commands_of_the_guide_run_as_written(documented):
    lines = [line for block in documented("bash") for line in block.splitlines()]
    commands = [line.split()[2:] for line in lines if line.startswith("iirc data ")]
    assert len(commands) == 11
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output)
    assert tree(Path("copy")) == tree(Path("shards/cifar10-2"))
    assert (
        len(list(Path("copy").rglob("*.tar")))
        == len(list(Path("shards/cifar10").rglob("*.tar")))
        == 20
    )


def test_the_recipes_of_the_guide_read_the_stored_images(documented):
    by_address, by_webdataset, by_dali = documented("python")
    names: dict[str, Any] = {}
    exec(by_address, names)
    expected = [names["store"].read(i).tobytes() for i in range(len(names["store"]))]
    assert names["first_image"] == expected[0]
    exec(by_webdataset, names)
    shown = [(image.tobytes(), Path(url).name) for image, url in names["images"]]
    assert len({pixels for pixels, _ in shown}) == len(shown) == 20
    assert {name.removesuffix("-000000.tar") for _, name in shown} == set(CIFAR10)
    pytest.importorskip("nvidia.dali")
    index = pytest.importorskip("iirc_data.shards.dali_index")
    index.write_dali_index(Path("shards/cifar10"), names["store"].manifest)
    exec(by_dali, names)
    pipeline = names["pipeline"]()
    pipeline.build()
    images, source = pipeline.run()
    assert images.at(0).shape == (32, 32, 3)
    assert re.fullmatch(
        r"shards/cifar10/train/\w+-000000\.tar:\d+:\d+\.jpg", bytes(source.at(0)).decode()
    )


# --- the commands -----------------------------------------------------------------------------


@pytest.fixture
def iirc_data(tiny_benchmark, tmp_path):
    """Return a function that runs ``iirc data`` with arguments; BENCHMARK stands for a file."""
    path = tmp_path / "benchmark.json"
    path.write_text(tiny_benchmark.model_dump_json())

    def run(*arguments: object, fails: bool = False) -> str:
        words = [str(path) if word == "BENCHMARK" else str(word) for word in arguments]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == int(fails), result.output
        if fails:
            (error,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
            return error
        return result.stdout

    return run


def test_info_shows_what_a_dataset_holds(server, tiny_store, iirc_data):
    for address in (tiny_store.root, server.url):
        shown = iirc_data("info", address)
        assert tiny_store.digest in shown
        assert re.search(r"train +6 +130 +6 +245\.8 kB", shown)
        assert re.search(r"test +6 +28 +6", shown)


def test_publish_pull_and_verify_go_together(tiny_store, tmp_path, iirc_data):
    assert tiny_store.digest in iirc_data("publish", tiny_store.root, "memory://lab")
    out = tmp_path / "out"
    shown = iirc_data("pull", "memory://lab", out, "--benchmark", "BENCHMARK", "--tasks", "1-2")
    assert f"{out}: 8 of 12 shards" in shown
    assert "lacks 4 of 12 shards" in shown
    assert "8 shards match the manifest" in iirc_data("verify", out)
    iirc_data("pull", "memory://lab", out)
    assert "partial copy" not in iirc_data("verify", out)
    assert tree(out) == tree(tiny_store.root)


def test_verify_names_missing_shards_which_are_an_error_only_where_all_are_wanted(
    tiny_store, tmp_path, iirc_data
):
    root = shutil.copytree(tiny_store.root, tmp_path / "shards")
    (root / "train" / "dog-000000.tar").unlink()
    lacks = r"lacks 1 of 12 shards \([\d.]+ kB\): train/dog-000000\.tar"
    shown = iirc_data("verify", root)
    assert "11 shards match the manifest" in shown
    assert re.search(lacks, shown)
    assert re.search(lacks, iirc_data("verify", root, "--complete", fails=True))
    damaged = root / "test" / "cat-000000.tar"
    damaged.write_bytes(b"x")
    result = CliRunner().invoke(app, ["verify", str(root)])
    assert result.exit_code == 1
    assert f"{damaged} has 1 bytes" in result.stdout
    assert re.search(lacks, result.stdout)
    for shard in root.glob("*/*.tar"):
        shard.unlink()
    shown = iirc_data("verify", root)
    assert "lacks 12 of 12 shards" in shown
    assert shown.count(".tar") == 5 and "(12 in all)" in shown


@pytest.mark.parametrize("address", ["memory://lab", "{}/published"])
def test_a_partial_copy_is_neither_published_nor_pulled(tiny_store, tmp_path, iirc_data, address):
    address = address.format(tmp_path)
    part = tmp_path / "part"
    pull(tiny_store.root, part, classes={"dog"})
    for command in (["publish", part, address], ["pull", part, tmp_path / "copy"]):
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()  # no bar, because nothing was copied
        assert "is a partial copy, which lacks 10 of 12 shards" in line
    assert not fsspec.filesystem("memory").find("/lab")
    assert not (tmp_path / "published").exists() and not (tmp_path / "copy").exists()
    pull(part, tmp_path / "dogs", classes={"dog"})
    assert iirc_data("pull", tiny_store.root, part).startswith(f"{part}: 12 shards, ")


def test_bytes_done_never_fall_below_zero_when_a_pull_breaks_off(server, tmp_path):
    server.misbehaviour["/train/cat-000000.tar"] = "breaks off"
    done = []
    with pytest.raises(ShardError):
        pull(server.url, tmp_path, progress=lambda size, total: done.append(size))
    assert min(done) >= 0


def test_verify_fails_with_the_names_of_damaged_files(tiny_store, tmp_path, iirc_data):
    root = shutil.copytree(tiny_store.root, tmp_path / "shards")
    path = root / "train" / "dog-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    result = CliRunner().invoke(app, ["verify", str(root)])
    assert result.exit_code == 1
    assert f"{path} does not match its digest" in result.stdout
    assert "1 problem" in result.stderr


def test_digests_are_those_of_the_task_views_wherever_the_data_are(
    server, tiny_store, tiny_benchmark, iirc_data
):
    shown = iirc_data("digest", server.url, "--benchmark", "BENCHMARK", "--schedule", 1)
    assert (
        iirc_data("digest", tiny_store.root, "--benchmark", "BENCHMARK", "--schedule", 1) == shown
    )
    lines = shown.splitlines()
    assert lines[0] == f"dataset {tiny_store.digest}"
    assert len(lines) == 1 + 4 * 4
    for split in ("train", "test"):
        sequence = TaskSequence.from_table(
            tiny_benchmark, tiny_store.manifest, tiny_store.table, split, schedule=1
        )
        view = sequence.view(2)
        assert f"{split} task 2 samples {len(view)} {view.digest()}" in lines


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["info", "/does/not/exist"], "/does/not/exist does not exist"),
        (["verify", "/does/not/exist"], "/does/not/exist does not exist"),
        (["publish", "/does/not/exist", "memory://lab"], "/does/not/exist does not exist"),
        (["pull", "/does/not/exist", "OUT"], "/does/not/exist does not exist"),
        (["pull", "ROOT", "OUT", "--tasks", "1"], "--tasks needs --benchmark"),
        (["pull", "ROOT", "OUT", "--benchmark", "irc_cifar10"], "did you mean 'iirc_cifar10'"),
        (["pull", "ROOT", "OUT", "--benchmark", "BENCHMARK", "--tasks", "2-9"], "tasks 0 to 3"),
        (["pull", "ROOT", "OUT", "--benchmark", "BENCHMARK", "--tasks", "x"], "such as 0-3,5"),
        (
            ["pull", "ROOT", "OUT", "--benchmark", "BENCHMARK", "--schedule", "7"],
            "schedules 0 to 1",
        ),
        (["digest", "ROOT", "--benchmark", "iirc_cifar10"], "classes that dataset"),
    ],
)
def test_errors_are_one_line(tiny_store, tmp_path, iirc_data, arguments, problem):
    places = {"ROOT": tiny_store.root, "OUT": tmp_path / "out"}
    assert problem in iirc_data(*[places.get(word, word) for word in arguments], fails=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, expected", [("0", [0]), ("0-3,5", [0, 1, 2, 3, 5]), (" 7 , 1-1 ", [7, 1])]
)
def test_task_numbers_are_parsed(text, expected):
    assert parse_task_ids(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "3-1", "-1", "1-", "1--2", "1;2", "1.5", "0-99999999999", "9" * 500]
)
def test_what_does_not_number_tasks_is_refused(text):
    with pytest.raises(BenchmarkError, match=re.escape(repr(text))):
        parse_task_ids(text)
