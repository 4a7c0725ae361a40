"""Sharding that is killed again and again ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from iirc_data.shards import write_shards
from iirc_data.sources import FolderSource, open_folder
from tests.conftest import encode, noise_image
from tests.processes import CONTEXT

ROOT = Path(__file__).parents[1]
N_CLASSES = 40
N_KILLS = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Classes of 120 images each: long enough to be seen while they are written."""
    root = tmp_path_factory.mktemp("kills") / "images"
    for number in range(N_CLASSES):
        folder = root / ("test" if number % 4 == 0 else "train") / f"class{number:02d}"
        folder.mkdir(parents=True)
        (folder / "000.jpg").write_bytes(encode(noise_image(number, 100, 100)))
        for i in range(1, 120):
            os.link(folder / "000.jpg", folder / f"{i:03d}.jpg")
    return root


@pytest.fixture(scope="module")
def unbroken(images, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("kills") / "unbroken"
    write_shards(FolderSource(images), out)
    return contents(out)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def finished_classes(out: Path) -> int:
    return len(list(out.glob(".receipts/*/*.json")))


def is_writing(out: Path, process_id: int | str) -> bool:
    return any(out.glob(f"*/.*.tar.*-{process_id}.partial"))


def is_writing_after(out: Path, n_classes: float, process_id: int) -> bool:
    return finished_classes(out) >= n_classes and is_writing(out, process_id)


def is_running(process_id: str) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, process) -> None:
    while not condition():
        if isinstance(process, subprocess.Popen):
            assert process.poll() is None
        else:
            assert process.is_alive(), "the run ended before it could be killed"
        time.sleep(0.0005)


def test_a_run_killed_over_and_over_ends_like_an_unbroken_one(images, unbroken, tmp_path):
    out = tmp_path / "out"
    half_written = 0
    for kill in range(N_KILLS):
        process = CONTEXT.Process(target=write_shards, args=(FolderSource(images), out))
        process.start()
        if kill % 6 == 5:  # while it starts, or looks at what earlier runs left
            time.sleep(0.002 * kill)
        else:
            wanted = 0.85 * N_CLASSES * kill / N_KILLS
            wait_until(partial(is_writing_after, out, wanted, process.pid), process)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        half_written += is_writing(out, process.pid)
        assert not (out / "manifest.json").exists()
    assert half_written >= N_KILLS / 2
    assert finished_classes(out) >= N_CLASSES / 2
    kept = []
    write_shards(
        FolderSource(images), out, progress=lambda job, result: kept.append(result.is_kept)
    )
    assert sum(kept) >= N_CLASSES / 2
    assert contents(out) == unbroken


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_the_process_that_started_them(images, unbroken, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tools.shard_folder", images, out, "--workers", "2"]
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    wait_until(partial(is_writing, out, "*"), process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(map(is_running, children)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.01)
    assert not (out / "manifest.json").exists()
    write_shards(open_folder(images), out)
    assert contents(out) == unbroken
