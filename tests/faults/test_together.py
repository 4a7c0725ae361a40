"""Commands that use the same folder concurrently."""

import threading
import time
from pathlib import Path

from iirc_data.errors import ShardError
from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.sharing import pull
from iirc_data.sources import open_folder
from tests.processes import CONTEXT
from tests.test_sharing import serve, tree


def shard(images: Path, out: Path, results) -> None:
    try:
        write_shards(open_folder(images), out)
        results.put("written")
    except ShardError as error:
        results.put(str(error))


def test_of_many_writers_of_one_folder_one_writes_and_the_others_say_why(tiny_folder, tmp_path):
    alone, out = tmp_path / "alone", tmp_path / "out"
    write_shards(open_folder(tiny_folder), alone)
    results = CONTEXT.SimpleQueue()
    writers = [CONTEXT.Process(target=shard, args=(tiny_folder, out, results)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    told = [results.get() for _ in writers]
    assert told.count("written") == 1
    refusals = ("is in use by", "already holds a finished dataset")
    unexplained = [
        text for text in told if text != "written" and not any(r in text for r in refusals)
    ]
    assert unexplained == []
    assert tree(out) == tree(alone)


def test_the_lock_of_a_writer_that_was_killed_holds_nobody_up(tiny_folder, tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    write_shards(open_folder(tiny_folder), tmp_path)
    assert not (tmp_path / ".lock").exists()


def read_all(address: str, cache: Path, results) -> None:
    store = ShardStore.open(address, cache=cache)
    results.put([store.read(i).tobytes() for i in range(len(store))])


def test_processes_that_share_a_cache_fetch_each_shard_once(tiny_store, tmp_path):
    expected = [tiny_store.read(i).tobytes() for i in range(len(tiny_store))]
    results = CONTEXT.Queue()
    with serve(tiny_store.root) as server:
        readers = [
            CONTEXT.Process(target=read_all, args=(server.url, tmp_path, results)) for _ in range(3)
        ]
        for reader in readers:
            reader.start()
        found = [results.get(timeout=60) for _ in readers]
        for reader in readers:
            reader.join()
        fetched = {path: n for path, n in server.requests.items() if path.endswith(".tar")}
    assert found == [expected] * 3
    assert set(fetched.values()) == {1}


def test_who_reads_while_a_dataset_is_pulled_sees_it_whole_or_not_at_all(tiny_store, tmp_path):
    expected = [tiny_store.read(i).tobytes() for i in range(len(tiny_store))]
    out = tmp_path / "out"
    wholes: list[bool] = []
    refusals: list[str] = []
    is_over = threading.Event()

    def read_again_and_again() -> None:
        while not is_over.is_set() or not wholes:
            try:
                store = ShardStore.open(out)
                wholes.append([store.read(i).tobytes() for i in range(len(store))] == expected)
            except ShardError as error:
                refusals.append(str(error))

    readers = [threading.Thread(target=read_again_and_again) for _ in range(3)]
    with serve(tiny_store.root) as server:
        for reader in readers:
            reader.start()
        # slow the connection down, so that readers read in between
        pull(server.url, out, workers=2, progress=lambda done, total: time.sleep(0.005))
        is_over.set()
        for reader in readers:
            reader.join(60)
    assert all(wholes)
    assert refusals
    assert all("shard folder" in text for text in refusals)
