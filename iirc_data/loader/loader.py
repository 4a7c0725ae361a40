"""The loader: one view's samples, mixed with replayed ones, as batches in a fixed order."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.augment import Transform, TransformPreset, uniform
from iirc_data.errors import LoaderError
from iirc_data.loader.batch import Batch, ReplaySource, indicator_targets
from iirc_data.loader.engine import DecodeRequest, Engine, read_plain
from iirc_data.loader.torch import TorchEngine
from iirc_data.order import batch_bounds, epoch_order, global_batch_bounds
from iirc_data.shards.store import ShardStore
from iirc_data.task_view import TaskView

EngineName: TypeAlias = Literal["auto", "dali", "torch"]


def make_engine(
    name: EngineName = "auto", device: torch.device | str = "cpu", threads: int | None = None
) -> Engine:
    """Make an engine; one engine may serve many loaders, one after another.

    Args:
        name: ``"dali"``, ``"torch"``, or ``"auto"``: DALI where it is installed.
        device: Where images are wanted.
        threads: Number of decoding threads; by default one per processor.

    Raises:
        LoaderError: DALI was asked for and is not installed, or the name is unknown.
    """
    device = torch.device(device)
    if name not in ("auto", "dali", "torch"):
        raise LoaderError(f"unknown loader engine {name!r}: choose auto, dali or torch")
    if name != "torch":
        with suppress(ImportError):
            from iirc_data.loader.dali import DaliEngine

            return DaliEngine(device, threads)
    if name == "dali":
        raise LoaderError(
            "DALI is not installed: pip install nvidia-dali-cuda130, or engine='torch'"
        )
    return TorchEngine(threads)


@dataclass(frozen=True)
class Normalization:
    """Turns uint8 pixels into network input.

    Attributes:
        mean: Mean of each colour channel, of values in [0, 1].
        std: Standard deviation of each colour channel.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 (N, 3, H, W) to float32 of the same shape and memory format."""
        mean, scale = _pixel_statistics(self, images.device)
        return images.to(torch.float32).sub_(mean).mul_(scale)


@lru_cache(maxsize=8)  # a copy to a GPU for every batch would wait for it
def _pixel_statistics(
    normalization: Normalization, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (
        torch.tensor(values, device=device).mul_(255.0).view(3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return mean, std.reciprocal_()


class Loader:
    """Iterates over batches; see :func:`make_loader`."""

    def __init__(
        self,
        view: TaskView,
        store: ShardStore,
        *,
        replay: ReplaySource | None,
        transform: Transform,
        normalization: Normalization | None,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
        engine: Engine,
    ) -> None:
        self._view = view
        self._store = store
        self._replay = replay
        self._transform = transform
        self._normalization = normalization
        self._shuffle = shuffle
        self._seed = seed
        self._device = device
        self._engine = engine
        self._epoch = self._first_batch = 0
        n_replayed = 0 if replay is None else len(replay)
        self._n = len(view) + n_replayed
        self._bounds = batch_bounds(self._n, batch_size, rank, world_size)
        together = global_batch_bounds(self._n, batch_size, world_size)
        self._batch_sizes = [stop - start for start, stop in together]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._bounds)

    @property
    def n_samples(self) -> int:
        """Number of samples of an epoch, replayed ones included, over all ranks."""
        return self._n

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch that further iterations show, and with which of its batches they begin.

        Args:
            epoch: Number of the epoch.
            first_batch: Number of the first batch; those before it are not read.
        """
        self._epoch, self._first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch
        order = epoch_order(self._n, seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        shown = self._bounds[self._first_batch :]
        sizes = self._batch_sizes[self._first_batch :]
        images = self._engine.images(self._request(order, epoch, *bounds) for bounds in shown)
        for (start, stop), size, pixels in zip(shown, sizes, images, strict=True):
            yield self._batch(order[start:stop], pixels, (stop - start) / size)

    def _request(
        self, order: NDArray[np.int64], epoch: int, start: int, stop: int
    ) -> DecodeRequest:
        chosen = order[start:stop]
        random = uniform(self._seed, epoch, start, stop, self._transform.n_random)
        heights, widths = self._sizes(chosen)
        return DecodeRequest(
            encoded=[self._read(number) for number in chosen.tolist()],
            augmentation=self._transform.parameters(heights, widths, random),
            names=lambda position: self._name(int(chosen[position])),
        )

    def _sizes(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        n_view = len(self._view)
        rows = self._view.sample_ids[chosen[chosen < n_view]]
        table = self._store.table
        sizes = np.empty((2, len(chosen)), np.int32)
        sizes[:, chosen < n_view] = table.height[rows], table.width[rows]
        if self._replay is not None:
            slots = chosen[chosen >= n_view] - n_view
            sizes[:, chosen >= n_view] = self._replay.heights[slots], self._replay.widths[slots]
        return sizes[0], sizes[1]

    def _read(self, number: int) -> NDArray[np.uint8]:
        if self._replay is not None and number >= len(self._view):
            return self._replay.read(number - len(self._view))
        return read_plain(self._store, int(self._view.sample_ids[number]))

    def _name(self, number: int) -> str:
        if self._replay is not None and number >= len(self._view):
            return self._replay.name(number - len(self._view))
        return self._store.name(int(self._view.sample_ids[number]))

    def _batch(self, chosen: NDArray[np.int64], pixels: torch.Tensor, share: float) -> Batch:
        n_view = len(self._view)
        replayed = chosen >= n_view
        labels = np.empty((len(chosen), 2), np.int32)
        sample_ids = n_view - chosen - 1
        labels[~replayed] = self._view.labels[chosen[~replayed]]
        sample_ids[~replayed] = self._view.sample_ids[chosen[~replayed]]
        if self._replay is not None:
            labels[replayed] = self._replay.labels[chosen[replayed] - n_view]
        images = self._on_device(pixels).permute(0, 3, 1, 2)
        targets = indicator_targets(labels, self._view.n_seen_classes)
        return Batch(
            images=images if self._normalization is None else self._normalization(images),
            targets=self._on_device(targets),
            in_buffer=self._on_device(torch.from_numpy(replayed)),
            sample_ids=torch.from_numpy(sample_ids),
            share=share,
        )

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda" and not tensor.is_cuda:
            tensor = tensor.pin_memory()  # only so does the copy not wait
        return tensor.to(self._device, non_blocking=True)


def make_loader(
    view: TaskView,
    store: ShardStore,
    replay: ReplaySource | None = None,
    *,
    transforms: TransformPreset,
    train: bool,
    batch_size: int = 128,
    shuffle: bool | None = None,
    normalize: bool = True,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    engine: Engine | EngineName = "auto",
) -> Loader:
    """Make a loader: whatever reads images, reads them through one.

    An epoch shows every sample of the view and every memory of ``replay`` once, in one exact
    permutation of both together.

    Args:
        view: Samples and labels to show; its order is kept where nothing is shuffled.
        store: The shards that hold the samples.
        replay: Memories to mix in.
        transforms: How images are shown, for example ``TRANSFORM_PRESETS["cifar"]``.
        train: Augment as for training; otherwise as for evaluation.
        batch_size: Samples per batch and rank.
        shuffle: Draw a new order each epoch; by default where ``train``.
        normalize: Give float32 normalised by the preset's mean and std; otherwise uint8.
        seed: Seed of order and augmentation.
        rank: This process's number in distributed training.
        world_size: Number of processes in distributed training.
        device: Where batches are wanted.
        engine: ``"auto"``, ``"dali"``, ``"torch"``, or an engine made by :func:`make_engine`.

    Returns:
        An iterable of :class:`~iirc_data.loader.batch.Batch`, with ``len`` and ``set_epoch``.

    Raises:
        LoaderError: The engine is unknown or not installed.
        ValueError: A number is out of range.
    """
    device = torch.device(device)
    return Loader(
        view,
        store,
        replay=replay,
        transform=transforms.train if train else transforms.evaluate,
        normalization=Normalization(transforms.mean, transforms.std) if normalize else None,
        batch_size=batch_size,
        shuffle=train if shuffle is None else shuffle,
        seed=seed,
        rank=rank,
        world_size=world_size,
        device=device,
        engine=make_engine(engine, device) if isinstance(engine, str) else engine,
    )
