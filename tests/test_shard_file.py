"""Reading shards while they are cut, fail, or are too many to be open at once."""

import errno
import gc
import os
import pickle
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.errors import ShardError
from iirc_data.loader import make_loader
from iirc_data.shards import ShardStore, store, write_shards
from iirc_data.shards.shard_file import ShardFile
from iirc_data.shards.verify import verify
from iirc_data.sources import open_folder
from tests.conftest import write_image_folder
from tests.test_loader import DECODERS, everything

N_SHARDS = 24
FILES = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of many small shards."""
    root = tmp_path_factory.mktemp("many")
    tree = {"train": {f"class {number}": 3 for number in range(N_SHARDS)}}
    write_shards(open_folder(write_image_folder(root / "images", tree)), root / "shards")
    return root / "shards"


@pytest.fixture
def shards(tmp_path):
    """A folder of one shard of 40 images."""
    write_shards(
        open_folder(write_image_folder(tmp_path / "images", {"train": {"cat": 40}})),
        tmp_path / "shards",
    )
    return tmp_path / "shards"


def cut(root, size=30_000):
    os.truncate(root / "train" / "cat-000000.tar", size)


def fail(monkeypatch, number=errno.EIO):
    def failing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pread", failing)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("fault", ["cut", "emptied", "input/output error"])
def test_a_shard_that_is_lost_while_it_is_read_is_an_error_that_names_it(
    shards, decoder, fault, monkeypatch
):
    opened = ShardStore.open(shards)
    loader = make_loader(
        everything(opened),
        opened,
        transforms=TRANSFORM_PRESETS["cifar"],
        train=True,
        batch_size=4,
        resident=False,
        decoder=decoder,
    )
    batches = iter(loader)
    next(batches)
    if fault == "input/output error":
        fail(monkeypatch)
    else:
        cut(shards, 0 if fault == "emptied" else 30_000)
    problem = "truncated while in use" if fault != "input/output error" else "Input/output error"
    with pytest.raises(ShardError, match=rf"cat-000000\.tar.*{problem}.*copy the shard again"):
        list(batches)


def test_verifying_a_shard_that_is_cut_meanwhile_reports_it(shards, monkeypatch):
    from iirc_data.shards import verify as module

    def members_then_cut(*_):
        cut(shards)
        return []

    monkeypatch.setattr(module, "member_problems", members_then_cut)
    (problem,) = verify(shards).problems
    assert "truncated while in use" in problem


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A file of bytes, and the bytes."""
    content = np.random.default_rng(0).integers(0, 256, 2500, dtype=np.uint8)
    path = tmp_path_factory.mktemp("numbers") / "numbers"
    path.write_bytes(content.tobytes())
    return path, content


@given(st.integers(0, 2000), st.integers(0, 500), st.integers(1, 300))
def test_reads_that_come_in_pieces_are_put_together(numbers, offset, size, at_once):
    path, content = numbers
    with pytest.MonkeyPatch.context() as patch:
        whole = os.pread
        patch.setattr(os, "pread", lambda file, n, at: whole(file, min(n, at_once), at))
        found = ShardFile(path).read(offset, size)
    assert np.array_equal(found, content[offset : offset + size])


def read_in_threads(opened, n_threads=6, n_reads=400):
    """Read at random in several threads; return what differs from reading alone, and errors."""
    expected = [opened.read(row).tobytes() for row in range(len(opened))]
    problems = []
    start = threading.Barrier(n_threads)

    def read(seed):
        rows = np.random.default_rng(seed).integers(0, len(opened), n_reads)
        start.wait()
        try:
            for row in rows.tolist():
                opened.will_read(rows[:2])
                if opened.read(row).tobytes() != expected[row]:
                    problems.append(f"row {row} is another image")
        except Exception as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


@pytest.fixture
def fast_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("most_open", [0, 1, 3, 512])
@pytest.mark.parametrize("has_pread", [True, False])
def test_threads_read_more_shards_than_are_kept_open(
    many, most_open, has_pread, monkeypatch, fast_switching
):
    monkeypatch.setattr(store, "MAX_OPEN_SHARDS", most_open)
    if not has_pread:
        monkeypatch.delattr(os, "pread")
    opened = ShardStore.open(many)
    assert read_in_threads(opened) == []
    n_open = count_open(many)
    assert min(most_open, 1) <= n_open <= most_open or sys.platform != "linux"
    opened.close()
    assert count_open(many) == 0


def count_open(folder):
    """Count the files below a folder that are open, none of those that other tests have left."""
    names = []
    for descriptor in FILES.iterdir() if sys.platform == "linux" else ():
        with suppress(FileNotFoundError):
            names.append(descriptor.readlink())
    return sum(name.is_relative_to(folder) for name in names)


@pytest.fixture
def few_files():
    """Return a function that leaves the process so many more files to open."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    taken = []

    def leave(n):
        gc.collect()  # what earlier tests left open is not to be closed meanwhile
        used = max(int(path.name) for path in FILES.iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + n, limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for file in taken[len(taken) - n :]:
            os.close(file)
        del taken[len(taken) - n :]

    yield leave
    for file in taken:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
@pytest.mark.parametrize("n_files", [1, 8])
def test_a_low_limit_of_open_files_slows_reading_and_does_not_end_it(
    many, few_files, fast_switching, n_files
):
    opened = ShardStore.open(many)
    few_files(n_files)
    assert read_in_threads(opened, n_reads=50) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_no_file_left_to_open_is_an_error_with_a_remedy(many, few_files):
    opened = ShardStore.open(many)
    few_files(0)
    opened.will_read(np.arange(3))  # what cannot be announced is not an error
    with pytest.raises(ShardError, match=r"Too many open files; allow more with: ulimit -n"):
        opened.read(0)


def test_a_store_that_travels_to_another_process_opens_its_shards_there(many):
    opened = ShardStore.open(many)
    expected = opened.read(5)
    assert np.array_equal(pickle.loads(pickle.dumps(opened)).read(5), expected)
