"""Readers that share a cache are killed: the cache stays right, and so does what others read."""

import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from iirc_data.locks import sole_writer_of
from iirc_data.shards import ShardStore, blocks, write_shards
from iirc_data.sources import open_folder
from tests.conftest import write_image_folder
from tests.faults.campaign import ENDS_OF_KILLED, Tally
from tests.faults.reading import BLOCK_SIZE
from tests.faults.saboteur import EVICTION, NOTHING, End, Fate, random_kill, run
from tests.range_server import serving

TREE = {"train": {"bear": 30, "cat": 25, "dog": 40}, "test": {"cat": 2}}
ROUNDS_PER_CACHE = 3
SHARES = {"read a stream": None, "read a stream through a small cache": 0.5}


@dataclass(frozen=True)
class Remote:
    """A dataset on a server.

    Attributes:
        address: Its address.
        local: The folder that is served.
    """

    address: str
    local: Path


@contextmanager
def remote_dataset(folder: Path) -> Iterator[Remote]:
    """Serve a dataset of some forty blocks, which is created in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_SIZE", BLOCK_SIZE)
        write_shards(open_folder(write_image_folder(folder / "images", TREE)), folder / "shards")
    with serving(folder / "shards") as server:
        yield Remote(server.url, folder / "shards")


class LostReaders:
    """Fault trials of several processes that read one dataset through one cache.

    After each kill, the cache contains only what the dataset contains, within its limit. The
    readers that live on, and one that follows, get the right images and each sample of their
    epochs once.

    Args:
        remote: The dataset.
        folder: Folder for the trials.
        seed: Random seed.
        share: The part of the dataset that the cache may hold; None for no limit, then nothing is
            evicted.
    """

    def __init__(self, remote: Remote, folder: Path, seed: int, share: float | None) -> None:
        self.tally = Tally()
        self._chance = random.Random(f"{seed} {share}")
        self._remote = remote
        self._cache = folder / "cache"
        self._folder = folder
        shards = ShardStore.open(remote.local).manifest.shards
        self._limit = 0 if share is None else int(share * sum(shard.bytes for shard in shards))
        started = time.monotonic()
        end = self._read(0, 0)
        self._seconds = time.monotonic() - started
        assert end.status == 0, end
        self._writes = end.writes

    def kill(self, n: int) -> None:
        """Kill n readers; in each round some are killed, one is not, and another one follows."""
        n_rounds = 0
        while self.tally.kills < n:
            if n_rounds % ROUNDS_PER_CACHE == 0:
                shutil.rmtree(self._cache, ignore_errors=True)
            n_rounds += 1
            fates = [self._random_kill() for _ in range(2)]
            epochs = [self._chance.randrange(1000) for _ in range(3)]
            with ThreadPoolExecutor(3) as threads:
                list(threads.map(self._try, range(3), epochs, [*fates, NOTHING]))
            self._try(0, self._chance.randrange(1000), NOTHING)

    def _random_kill(self) -> Fate:
        """Return a kill; half of them at an eviction or shortly after, if there are any."""
        fate = random_kill(self._chance, self._writes, self._seconds)
        n_evictions = self._writes.count(EVICTION)
        if not n_evictions or self._chance.random() < 0.5:
            return fate
        return replace(
            fate,
            at_write=self._chance.randrange(n_evictions),
            part=EVICTION,
            after=self._chance.choice([0.0, 1e-4, 2e-3]),
        )

    def _try(self, number: int, epoch: int, fate: Fate) -> None:
        end = self._read(number, epoch, fate)
        if fate.kind and end.status in ENDS_OF_KILLED:
            self.tally.kills += 1
            self.tally.moments[end.moment] += 1
        elif end.status:
            self.tally.problems.append(f"a reader ended with {end.status}: {end.told[-600:]}")
        self._check_cache(f"after {fate}")

    def _read(self, number: int, epoch: int, fate: Fate = NOTHING) -> End:
        notes = self._folder / f"notes {number}"
        notes.mkdir(exist_ok=True, parents=True)
        self._cache.mkdir(exist_ok=True, parents=True)
        places = self._remote.address, self._remote.local, self._cache
        words = [*map(str, places), str(self._limit), str(epoch)]
        return run("tests.faults.reading", words, self._cache, notes, fate)

    def _check_cache(self, when: str) -> None:
        with sole_writer_of(self._cache / "usage"):  # nothing is added or evicted meanwhile
            held = cached_bytes(self._cache)
            if self._limit and held > self._limit:
                self.tally.problems.append(f"{when}: {held} bytes, the limit is {self._limit}")
            for path in self._cache.rglob("*.tar.blocks/[0-9]*"):
                start, stop = map(int, path.name.split("-"))
                shard = path.parent.relative_to(self._cache).as_posix().partition("/")[2]
                whole = (self._remote.local / shard.removesuffix(".blocks")).read_bytes()
                if path.read_bytes() != whole[start:stop]:
                    self.tally.problems.append(f"{when}: wrong bytes in {path}")


def cached_bytes(folder: Path) -> int:
    """Return the sum of the sizes of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total
