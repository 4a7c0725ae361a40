"""Reads an epoch of a remote dataset through a cache: the entry point of the readers under test."""

from pathlib import Path

import numpy as np

from iirc_data.augment import IMAGE_PRESETS
from iirc_data.loader import make_loader
from iirc_data.shards import ShardStore, blocks
from iirc_data.task_view import TaskView

BLOCK_SIZE = 1 << 13


def main(address: str, local: Path, cache: Path, limit: int, epoch: int) -> None:
    """Compare an epoch with that of the local dataset; count each of its samples."""
    blocks.BLOCK_SIZE = BLOCK_SIZE
    stores = ShardStore.open(address, cache=cache, cache_size=limit or None), ShardStore.open(local)
    loaders = [
        make_loader(
            everything(store),
            store,
            transforms=IMAGE_PRESETS["cifar"],
            train=True,
            batch_size=8,
            decoder="pillow",
            resident=False,
        )
        for store in stores
    ]
    for loader in loaders:
        loader.set_epoch(epoch)
    counts = np.zeros(len(stores[1]), int)
    for streamed, expected in zip(*loaders, strict=True):
        assert (streamed.images == expected.images).all(), "other images than the local ones"
        np.add.at(counts, streamed.sample_ids.numpy(), 1)
    rows = stores[1].manifest.split_rows("train")
    assert (counts[rows.start : rows.stop] == 1).all(), "not every sample exactly once"


def everything(store: ShardStore) -> TaskView:
    """Return a view of all training images."""
    rows = store.manifest.split_rows("train")
    ids = np.arange(rows.start, rows.stop)
    labels = np.stack([store.table.class_id[ids], np.full(len(ids), -1)], 1).astype(np.int32)
    names = tuple(store.manifest.classes)
    return TaskView(names, (0,), 0, len(names), tuple(range(len(names))), ids, labels)
