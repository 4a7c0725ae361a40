"""Training from shards at a web address, compared with local shards and with other libraries.

    python -m benchmarks.streaming PHOTOGRAPHS

PHOTOGRAPHS is a tar or a folder of images, or a shard folder. A server in another process answers
after 20 ms, at 50 MB/s and as fast as it can; it shares the processors of this machine. The program
measures, in one run:

- by HTTP and by S3: a cold epoch (nothing in the cache) and a warm one, beside an epoch over local
  shards, and beside what the link carries: a bare download of the same blocks over as many
  connections. "cold ÷ lesser" compares with the lesser of the two; "at most" is the value that a
  loader could reach that decodes each batch when its last block has arrived. As the server shares
  the processors, an epoch over local shards during such a download is measured, too;
- training a ResNet-18 in a cold epoch and in a warm one;
- epochs with a cache of a third of the dataset: bytes fetched, the most that the cache ever held,
  and whether the images are those of local shards;
- webdataset, LitData and MosaicML Streaming, where they are installed: first and second epoch.
"""

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.images import DrawnPhotographs, opened
from benchmarks.range_server import bytes_sent, serving
from benchmarks.streaming_links import (
    LATENCY,
    PROTOCOLS,
    RATES,
    download,
    earliest_end,
    link,
)
from benchmarks.streaming_peers import PEERS, UnavailableError
from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.console import run_tool
from iirc_data.loader import make_decoder, make_loader
from iirc_data.locks import sole_writer_of
from iirc_data.shards import ShardStore
from iirc_data.task_view import TaskView

BATCH_SIZE = 32
N_CLASSES = 10
_SMALL_BLOCKS = 2  # of the bounded order; the dataset has some dozen in all


def everything(store: ShardStore) -> TaskView:
    """Return a view of all images."""
    classes = store.table.class_id.astype(np.int32)
    names = tuple(store.manifest.classes)
    labels = np.stack([classes, np.full(len(store), -1, np.int32)], axis=1)
    return TaskView(
        names, (0,), 0, len(names), tuple(range(len(names))), np.arange(len(store)), labels
    )


class Epochs:
    """Epochs over a dataset with one decoder."""

    def __init__(self, batch_size: int = BATCH_SIZE) -> None:
        self._decoder = make_decoder("auto", "cpu")
        self._batch_size = batch_size

    def batches(
        self, store: ShardStore, epoch: int, order: str, blocks: int, view: TaskView | None = None
    ) -> Any:
        """Return an epoch's batches."""
        loader = make_loader(
            everything(store) if view is None else view,
            store,
            transforms=TRANSFORM_PRESETS["imagenet"],
            train=True,
            batch_size=self._batch_size,
            order=order,  # type: ignore[arg-type]
            order_blocks=blocks,
            decoder=self._decoder,
        )
        loader.set_epoch(epoch)
        return loader

    def speed(self, store: ShardStore, epoch: int, order: str, blocks: int) -> float:
        """Return the images per second of an epoch."""
        started = time.perf_counter()
        n = sum(len(batch) for batch in self.batches(store, epoch, order, blocks))
        return n / (time.perf_counter() - started)

    def sample_ids(self, store: ShardStore, epoch: int, order: str, blocks: int) -> list[int]:
        """Return the samples of an epoch in its order."""
        sample_ids: list[int] = []
        for batch in self.batches(store, epoch, order, blocks):
            sample_ids += batch.sample_ids.tolist()
        return sample_ids

    def digest(self, store: ShardStore, epoch: int, order: str, blocks: int) -> str:
        """Return a digest of all pixels of an epoch, in order."""
        digest = hashlib.sha256()
        for batch in self.batches(store, epoch, order, blocks):
            digest.update(batch.images.contiguous().numpy().tobytes())
        return digest.hexdigest()


def train(epochs: Epochs, store: ShardStore, n_images: int) -> float:
    """Train a ResNet-18 on a part of the images; return the images per second."""
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=N_CLASSES).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    view = everything(store)
    view = view.subset(np.arange(min(n_images, len(view))))
    started = time.perf_counter()
    for batch in epochs.batches(store, 0, "bounded", _SMALL_BLOCKS, view):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            net(batch.images), batch.targets
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return len(view) / (time.perf_counter() - started)


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """Yield an empty folder, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="iirc-cache-") as folder:
        yield Path(folder)


def stream_speeds(
    epochs: Epochs, local: ShardStore, protocol: str, name: str, runs: int
) -> list[tuple[str, ...]]:
    """Measure local, cold and warm epochs in alternation; return rows of the table."""
    return [
        _stream_speeds(epochs, local, protocol, name, order, runs) for order in ("bounded", "exact")
    ]


def _stream_speeds(
    epochs: Epochs, local: ShardStore, protocol: str, name: str, order: str, runs: int
) -> tuple[str, ...]:
    shards = sum(shard.bytes for shard in local.manifest.shards)
    n, found = len(local), defaultdict[str, list[float]](list)
    for run in range(runs):
        speed = partial(epochs.speed, epoch=run, order=order, blocks=_SMALL_BLOCKS)
        found["local"].append(speed(local))
        with fresh_cache() as cache, link(local, protocol, RATES[name]) as served:
            seconds = download(local, served)
            found["link"].append(n / seconds)
            beside = threading.Thread(target=download, args=(local, served))
            beside.start()
            found["beside"].append(speed(local))
            beside.join()
            store = ShardStore.open(served.address, cache=cache)
            before = bytes_sent(served.server)
            found["cold"].append(speed(store))
            found["fetched"].append((bytes_sent(served.server) - before) / shards)
            found["warm"].append(speed(store))
            store.close()
        lesser = min(found["link"][-1], found["local"][-1])
        found["ratio"].append(found["cold"][-1] / lesser)
        order_of_ids = epochs.sample_ids(local, run, order, _SMALL_BLOCKS)
        earliest = earliest_end(
            local, order_of_ids, BATCH_SIZE, n / found["link"][-1], found["local"][-1]
        )
        found["bound"].append(n / earliest / lesser)
    middle = {key: median(values) for key, values in found.items()}
    return (
        protocol,
        name,
        order,
        *(f"{middle[key]:.0f}" for key in ("local", "beside", "link", "cold", "warm")),
        *(f"{middle[key]:.2f}" for key in ("ratio", "bound")),
        f"{middle['fetched']:.3f}",
    )


def small_cache(epochs: Epochs, local: ShardStore, order: str) -> tuple[str, ...]:
    """Read two epochs through a cache of a third of the dataset; return a row of the table."""
    shards = sum(shard.bytes for shard in local.manifest.shards)
    limit = shards // 3
    most, is_over = 0, threading.Event()
    with fresh_cache() as cache, serving(local.root, LATENCY, 0.0) as address:
        store = ShardStore.open(address, cache=cache, cache_size=limit)

        def sample() -> None:
            nonlocal most
            while not is_over.wait(0.05):
                with sole_writer_of(cache / "usage"):
                    most = max(most, _bytes_below(cache))

        sampler = threading.Thread(target=sample)
        sampler.start()
        fetched, right = [], True
        for epoch in range(2):
            before = store.fetched_bytes
            digest = epochs.digest(store, epoch, order, _SMALL_BLOCKS)
            fetched.append((store.fetched_bytes - before) / shards)
            right &= digest == epochs.digest(local, epoch, order, _SMALL_BLOCKS)
        is_over.set()
        sampler.join()
        store.close()
    return (
        order,
        "yes" if right else "NO",
        f"{most / limit:.2f}",
        *(f"{value:.2f}" for value in fetched),
    )


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def _table(console: Console, title: str, headings: tuple[str, ...], rows: list[Any]) -> None:
    table = Table(*headings, title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main(
    photographs: Annotated[Path | None, typer.Argument(help="Images; by default drawn.")] = None,
    n_images: Annotated[int, typer.Option(min=8)] = 500,
    runs: Annotated[int, typer.Option(min=1)] = 3,
    trained: Annotated[int, typer.Option(min=0, help="Images to train on; 0 for none.")] = 128,
    with_peers: Annotated[bool, typer.Option("--peers/--no-peers")] = True,
) -> None:
    """Measure streaming."""
    console = Console(width=110)
    epochs = Epochs()
    with opened(photographs, DrawnPhotographs(), n_images, N_CLASSES) as local:
        shards = sum(shard.bytes for shard in local.manifest.shards)
        console.print(
            f"{len(local)} images, {shards / 1e6:.1f} MB, {len(local.manifest.shards)} shards, "
            f"{len(local.blocks)} blocks, {LATENCY * 1000:.0f} ms, batches of {BATCH_SIZE}"
        )
        epochs.speed(local, 0, "exact", 1)  # warms up the decoder and the page cache
        rows = [
            row
            for protocol in PROTOCOLS
            for name in RATES
            for row in stream_speeds(epochs, local, protocol, name, runs)
        ]
        speeds = ("local", "local beside a download", "link carries", "cold", "warm")
        ratios = ("cold ÷ lesser", "at most", "fetched ÷ missing")
        _table(console, "images/s of an epoch", ("", "link", "order", *speeds, *ratios), rows)
        rows = [small_cache(epochs, local, order) for order in ("bounded", "exact")]
        of_cache = ("order", "same images", "most held ÷ limit", "fetched, epoch 1", "epoch 2")
        _table(console, "a cache of a third, in multiples of the dataset", of_cache, rows)
        if trained:
            _table(console, *_training(epochs, local, trained, runs))
        if with_peers:
            _table(console, *_peers(epochs, local))


def _training(epochs: Epochs, local: ShardStore, n_images: int, runs: int) -> Any:
    rows = []
    for name, rate in RATES.items():
        speeds: dict[str, list[float]] = {"cold": [], "warm": [], "local": []}
        for _ in range(runs):
            with fresh_cache() as cache, serving(local.root, LATENCY, rate) as address:
                store = ShardStore.open(address, cache=cache)
                speeds["cold"].append(train(epochs, store, n_images))
                speeds["warm"].append(train(epochs, store, n_images))
                speeds["local"].append(train(epochs, local, n_images))
        ratios = [c / w for c, w in zip(speeds["cold"], speeds["warm"], strict=True)]
        middle = [f"{median(values):.1f}" for values in speeds.values()]
        rows.append((name, *middle, f"{median(ratios):.2f}"))
    return "ResNet-18, images/s", ("link", *speeds, "cold ÷ warm"), rows


def _peers(epochs: Epochs, local: ShardStore) -> Any:
    rows = []
    for name, rate in RATES.items():
        with fresh_cache() as cache, serving(local.root, LATENCY, rate) as address:
            store = ShardStore.open(address, cache=cache)
            speeds = [epochs.speed(store, epoch, "bounded", _SMALL_BLOCKS) for epoch in range(2)]
            rows.append((name, "iirc", *(f"{speed:.0f}" for speed in speeds)))
        for peer, prepare in PEERS.items():
            with fresh_cache() as folder:
                rows.append((name, peer, *_peer_speeds(prepare, local, folder, rate)))
    return "first and second epoch, images/s", ("link", "", "first", "second"), rows


def _peer_speeds(
    prepare: Callable[..., Any], local: ShardStore, folder: Path, rate: float
) -> tuple[str, ...]:
    try:
        make, served = prepare(local, folder)
        with serving(served, LATENCY, rate) as address:
            epoch = make(address)
            speeds = []
            for number in range(2):
                started = time.perf_counter()
                n = epoch(number)
                speeds.append(f"{n / (time.perf_counter() - started):.0f}")
            return tuple(speeds)
    except UnavailableError as error:
        return str(error), ""
    except Exception as error:  # a peer must not end the benchmark
        return f"{type(error).__name__}: {error}"[:60], ""
    finally:
        shutil.rmtree(folder / "cache", ignore_errors=True)


if __name__ == "__main__":
    run_tool(main)
