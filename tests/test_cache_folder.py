"""The cache of remote datasets: its limit, what it evicts, and the command that shows it."""

import os
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iirc_data.commands.data import app
from iirc_data.errors import ShardError
from iirc_data.files import hidden_neighbour, writer_name
from iirc_data.shards import ShardStore
from iirc_data.shards.cache_folder import CacheFolder, Evict, NoRoomError
from iirc_data.sizes import parse_size
from iirc_train.cli.data import app as data_app
from tests.range_server import serving
from tests.test_streaming import cached_bytes, contents, local, surroundings  # noqa: F401

KB = 1000


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache" / ("0" * 64)


def add(cache: CacheFolder, path: Path, size: int, evict: Evict = Evict.UNPINNED) -> None:
    with cache.adding(path, size, evict) as file:
        file.write(b"x" * size)
    # files of one test are written within a tick of the file system's clock
    stamp = time.time_ns() - 10**12 + 10**9 * int(path.name)
    os.utime(path, ns=(stamp, stamp))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_the_file_that_was_not_used_for_longest_is_evicted_first(folder):
    cache = CacheFolder(folder.parent, 50 * KB)  # a tenth is for the state
    for number in range(4):
        add(cache, folder / str(number), 10 * KB)
    os.utime(folder / "0")
    add(cache, folder / "4", 10 * KB)
    assert names(folder) == {"0", "2", "3", "4"}
    add(cache, folder / "5", 20 * KB)
    assert names(folder) == {"0", "4", "5"}


def test_pinned_files_are_evicted_only_for_a_reader_that_waits(folder):
    cache = CacheFolder(folder.parent, 50 * KB)
    pinned = {folder / str(number) for number in range(4)}
    cache.pins.pin(pinned.__contains__, lambda: pinned)
    for number in range(4):
        add(cache, folder / str(number), 10 * KB)
    with pytest.raises(NoRoomError):
        add(cache, folder / "4", 10 * KB)
    add(cache, folder / "5", 10 * KB, Evict.ANYTHING)
    assert names(folder) == {"1", "2", "3", "5"}


def test_what_is_fetched_for_later_evicts_nothing(folder):
    cache = CacheFolder(folder.parent, 20 * KB)
    add(cache, folder / "0", 10 * KB, Evict.NOTHING)
    with pytest.raises(NoRoomError):
        add(cache, folder / "1", 10 * KB, Evict.NOTHING)
    assert names(folder) == {"0"}


def test_files_that_another_process_needs_next_stay(folder):
    one, other = (CacheFolder(folder.parent, 40 * KB) for _ in range(2))
    pinned = [folder / "0"]
    one.pins.pin(pinned.__contains__, lambda: pinned)
    for number in range(3):
        add(one, folder / str(number), 10 * KB)
    one.pins.announce()
    assert other.pins.everywhere() == set(pinned)
    add(other, folder / "3", 10 * KB)
    assert names(folder) == {"0", "2", "3"}
    one.pins.withdraw()
    assert other.pins.everywhere() == set()


def test_files_in_transfer_count_and_a_reader_waits_for_them(folder):
    cache = CacheFolder(folder.parent, 30 * KB)
    done = threading.Event()
    with cache.adding(folder / "0", 20 * KB) as file:
        assert cached_bytes(folder) == 20 * KB
        with pytest.raises(NoRoomError):
            add(cache, folder / "1", 20 * KB)
        waiting = threading.Thread(
            target=lambda: (add(cache, folder / "2", 20 * KB, Evict.ANYTHING), done.set())
        )
        waiting.start()
        assert not done.wait(0.1)
        file.write(b"x" * 20 * KB)
    waiting.join(20)
    assert names(folder) == {"2"}


def test_a_transfer_that_fails_leaves_its_room(folder):
    cache = CacheFolder(folder.parent, 30 * KB)
    for _ in range(3):
        with pytest.raises(KeyError), cache.adding(folder / "0", 20 * KB):
            raise KeyError
    add(cache, folder / "1", 20 * KB, Evict.NOTHING)
    assert names(folder) == {"1"}


@pytest.mark.parametrize("limit", [None, 40 * KB])
def test_a_file_that_is_replaced_no_longer_counts(folder, limit):
    cache = CacheFolder(folder.parent, limit)
    for size in (10 * KB, 4 * KB, 8 * KB):
        add(cache, folder / "0", size)
    assert int((folder.parent / "usage").read_text()) - cache._promised == 8 * KB


def test_a_lost_or_damaged_sum_is_computed_again_and_dead_writers_files_are_removed(folder):
    cache = CacheFolder(folder.parent, 40 * KB)
    add(cache, folder / "0", 10 * KB)
    host = writer_name().rsplit("-", 2)[0]
    ours = hidden_neighbour(folder / "1", f"{writer_name()}.partial")
    dead = hidden_neighbour(folder / "2", f"{host}-1-{2**22 + 1}.partial")
    elsewhere = hidden_neighbour(folder / "3", "another.host-1-1.partial")
    old = hidden_neighbour(folder / "4", "another.host-2-2.partial")
    for path in (ours, dead, elsewhere, old):
        path.write_bytes(b"x" * KB)
    os.utime(old, (1, 1))
    for damage in ("", "x\n", "-5\n"):
        (folder.parent / "usage").write_text(damage)
        add(cache, folder / "5", 20 * KB)
        (folder / "5").unlink()
        (folder.parent / "usage").unlink()
        add(cache, folder / "6", 4 * KB)
        assert int((folder.parent / "usage").read_text()) == 16 * KB
        (folder / "6").unlink()
    assert names(folder) == {"0", ours.name, elsewhere.name}


def test_a_limit_below_one_file_is_an_error_that_names_the_setting(folder):
    with pytest.raises(ShardError, match="raise IIRC_CACHE_SIZE or the setting cache_size"):
        add(CacheFolder(folder.parent, 10 * KB), folder / "0", 20 * KB, Evict.ANYTHING)


@pytest.mark.parametrize(
    "text, size",
    [("1", 1), ("50GB", 50 * 10**9), ("1.5 MiB", 3 << 19), ("2k", 2000), ("1 TB", 10**12)],
)
def test_sizes_are_parsed(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1e9", "5 pounds", "1iB", "9" * 20])
def test_what_is_no_size_is_refused(text, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)
    if text:
        monkeypatch.setenv("IIRC_CACHE_SIZE", text)
        with pytest.raises(ShardError, match="IIRC_CACHE_SIZE"):
            CacheFolder(tmp_path)


def test_the_limit_is_that_of_the_call_or_the_variable_or_the_folder(tmp_path, monkeypatch):
    CacheFolder(tmp_path).set_limit(7 * KB)
    assert CacheFolder(tmp_path).limit == 7 * KB
    monkeypatch.setenv("IIRC_CACHE_SIZE", "8kB")
    assert CacheFolder(tmp_path).limit == 8 * KB
    assert CacheFolder(tmp_path, 9 * KB).limit == 9 * KB


# --- iirc data cache --------------------------------------------------------------------------


def run(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(data_app, ["cache", *arguments])
    assert result.exit_code == int(fails), result.output
    return result.stderr if fails else result.stdout


def test_the_command_shows_limits_and_clears_the_cache(local, tmp_path):  # noqa: F811
    assert "limit  none" in run()
    with serving(local.root) as server:
        store = ShardStore.open(server.url)
        assert contents(store) == contents(local)
        shown = run()
        assert local.digest[:16] in shown
        total = sum(shard.bytes for shard in local.manifest.shards)
        assert f"{total / 1000:.1f} kB" in shown
        run("--limit", f"{total // 2}")
        assert cached_bytes(tmp_path / "cache") <= total // 2
        assert f"limit  {total // 2 / 1000:.1f} kB" in run()
        assert contents(store, range(0, len(store), 9)) == contents(local, range(0, len(local), 9))
        assert "holds no dataset 'abc'" in run("--clear", "abc", fails=True)
        assert "freed" in run("--clear", local.digest[:8])
        assert not list((tmp_path / "cache").rglob("*.npz"))
        run("--limit", "none")
        again = ShardStore.open(server.url)
        assert contents(again) == contents(local)
        again.close()  # otherwise the last block may still be in transfer
        assert "freed" in run("--clear")
        assert "held   0 bytes" in run()


def test_the_command_refuses_what_is_no_size(tmp_path):
    assert "--limit: 'much' is not a size" in run("--limit", "much", fails=True)
    assert app.info.help
