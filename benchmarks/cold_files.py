"""Reads images that are not in the page cache, with and without announcing them to the kernel.

    python -m benchmarks.cold_files SHARDS

Like a loader, the program reads images in random order, batch by batch, two batches ahead of the
threads that use them. Each batch is announced while the batch before it is read, or not at all.
Before each run, the shards are dropped from the page cache.
"""

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from iirc_data.console import run_tool
from iirc_data.shards import ShardStore

_AHEAD = 2
_THREADS = 2


def forget(shards: ShardStore) -> None:
    """Drop the shards from the page cache."""
    os.sync()
    for shard in shards.manifest.shards:
        with (shards.root / shard.path).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def look(image: NDArray[np.uint8]) -> int:
    """Read a byte of every page of an image."""
    return int(image[::4096].sum()) + int(image[-1])


def read_cold(shards: Path, n: int, batch_size: int, announced: bool) -> float:
    """Return the images read per second."""
    with_images = ShardStore.open(shards)
    forget(with_images)
    order = np.random.default_rng(0).permutation(len(with_images))[:n]
    waiting = deque[list[NDArray[np.uint8]]]()
    started = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, n, batch_size):
            if announced:
                with_images.will_read(order[first : first + 2 * batch_size])
            batch = [with_images.read(number) for number in order[first : first + batch_size]]
            waiting.append(batch)
            if len(waiting) > _AHEAD:
                list(pool.map(look, waiting.popleft()))
        for batch in waiting:
            list(pool.map(look, batch))
    return len(order) / (time.perf_counter() - started)


def main(
    shards: Annotated[Path, typer.Argument(help="Shard folder on a disk.")],
    images: Annotated[int, typer.Option(help="Number of images to read.")] = 4000,
    batch_size: Annotated[int, typer.Option(help="Images per batch.")] = 128,
    runs: Annotated[int, typer.Option(help="Runs of each variant.")] = 5,
) -> None:
    """Measure, and print medians."""
    speeds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(runs):
        for announced, of_run in speeds.items():
            of_run.append(read_cold(shards, images, batch_size, announced))
    for announced, of_run in speeds.items():
        name = "announced" if announced else "not announced"
        print(f"cold images, {name:14} {median(of_run):8,.0f} images/s")


if __name__ == "__main__":
    run_tool(main)
