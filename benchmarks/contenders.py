"""Contenders of the loader benchmarks: their workload, a check of their output, and timing."""

import itertools
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import Role, Speed
from benchmarks.timing import interleaved
from iirc_data.augment import TRANSFORM_PRESETS, TransformPreset
from iirc_data.console import one_line
from iirc_data.definitions import NO_LABEL, TRAIN
from iirc_data.errors import LoaderError
from iirc_data.loader import DecoderName, make_decoder, make_loader
from iirc_data.shards import ShardStore
from iirc_data.task_view import TaskView

_TOLERANCE = 0.5  # of mean and standard deviation, in standard deviations, because crops are random

Epoch = Callable[[], Iterable[torch.Tensor]]
"""Starts an epoch and yields its batches of images, (N, 3, H, W)."""


class UnavailableError(Exception):
    """A contender cannot run on this machine; the message gives the reason."""


@dataclass(frozen=True)
class Workload:
    """The task of every contender: to load some images once per epoch, augmented for training.

    Attributes:
        store: The shards.
        shard_numbers: Numbers of the shards whose images are loaded.
        preset: Name of the transforms: ``"imagenet"`` or ``"cifar"``.
        normalize: Whether images are normalised float32 instead of uint8.
        batch_size: Images per batch.
        workers: Number of processes or threads that decode.
        device: Device that receives the images.
    """

    store: ShardStore
    shard_numbers: tuple[int, ...]
    preset: str
    normalize: bool
    batch_size: int
    workers: int
    device: torch.device

    @classmethod
    def of_size(cls, store: ShardStore, n_images: int, **settings: object) -> Self:
        """Use the first training shards that together contain enough images.

        Args:
            store: The shards.
            n_images: Minimum number of images; shards are used whole.
            **settings: The other attributes.
        """
        splits = store.manifest.splits
        split = TRAIN if TRAIN in splits else next(iter(splits))
        paths = {shard.path for shard in splits[split]}
        chosen, found = [], 0
        for number, shard in enumerate(store.manifest.shards):
            if shard.path in paths and found < n_images:
                chosen.append(number)
                found += shard.samples
        return cls(store=store, shard_numbers=tuple(chosen), **settings)  # type: ignore[arg-type]

    @property
    def output(self) -> str:
        """Name of the output."""
        return "float32, normalised" if self.normalize else "uint8"

    @property
    def transforms(self) -> TransformPreset:
        """The transforms."""
        return TRANSFORM_PRESETS[self.preset]

    @cached_property
    def sample_ids(self) -> NDArray[np.int64]:
        """int64 (N,): rows of the images in the sample table."""
        return np.flatnonzero(np.isin(self.store.table.shard, self.shard_numbers))

    @property
    def paths(self) -> list[Path]:
        """Paths of the tars."""
        shards = self.store.manifest.shards
        return [self.store.root / shards[number].path for number in self.shard_numbers]

    @property
    def view(self) -> TaskView:
        """The images as samples of one class."""
        labels = np.tile(np.array([0, NO_LABEL], np.int32), (len(self.sample_ids), 1))
        return TaskView(("image",), (0,), 0, 1, (0,), self.sample_ids, labels)


Build = Callable[[Workload, ExitStack], Epoch]
"""Builds a contender, and registers cleanup on the stack.

Raises:
    UnavailableError: The contender cannot run on this machine.
"""


@dataclass(frozen=True)
class Contender:
    """A way to load images.

    Attributes:
        name: Name in tables.
        role: See :class:`~benchmarks.results.Speed`; a limit yields no images.
        build: Builds the contender.
    """

    name: str
    role: Role
    build: Build


def ours(name: DecoderName, resident: bool = False) -> Build:
    """Return a function that builds this project's loader.

    Args:
        name: Decoder of the loader.
        resident: Keep decoded images on the device.
    """

    def build(workload: Workload, stack: ExitStack) -> Epoch:
        try:
            decoder = make_decoder(name, workload.device, workload.workers)
        except LoaderError as error:
            raise UnavailableError(str(error)) from error
        stack.callback(decoder.close)
        loader = make_loader(
            workload.view,
            workload.store,
            transforms=workload.transforms,
            train=True,
            batch_size=workload.batch_size,
            normalize=workload.normalize,
            resident=resident,
            device=workload.device,
            decoder=decoder,
        )
        numbers = itertools.count()

        def epoch() -> Iterable[torch.Tensor]:
            loader.set_epoch(next(numbers))
            return (batch.images for batch in loader)

        return epoch

    return build


def measure(workload: Workload, contenders: Iterable[Contender], runs: int) -> list[Speed]:
    """Build contenders, compare their output over one epoch, and time further epochs.

    Prints a line to standard error as each contender ends its first epoch, which is not timed.

    Args:
        workload: The workload.
        contenders: The contenders. The output of each is compared with that of the first one that
            can run.
        runs: Timed epochs of each contender.

    Returns:
        A speed for each contender.

    Raises:
        RuntimeError: The output of a contender differs from that of the first.
    """
    speeds: list[Speed] = []
    epochs: dict[str, Callable[[], None]] = {}
    expected: _Seen | None = None
    with ExitStack() as stack:
        for contender in contenders:
            speed = Speed(contender=contender.name, role=contender.role, output=workload.output)
            speeds.append(speed)
            started = time.perf_counter()
            try:
                epoch = contender.build(workload, stack)
            except UnavailableError as error:
                speed.note = str(error)
                _report(f"{contender.name}: {error}")
                continue
            seen = _look_at(epoch(), workload)
            _report(f"{contender.name}: {time.perf_counter() - started:.1f} s with its first epoch")
            if contender.role != "limit":
                expected = expected or seen
                seen.check(contender.name, expected)
            epochs[contender.name] = partial(_exhaust, epoch, workload.device)
        timings = interleaved(epochs, runs)
    n = len(workload.sample_ids)
    for speed in speeds:
        if speed.contender in timings:
            timing = timings[speed.contender]
            speed.images_per_second = [n / seconds for seconds in timing.seconds]
            speed.median = n / timing.median
    return speeds


def _report(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Seen:
    n_images: int
    shapes: frozenset[tuple[int, ...]]
    dtypes: frozenset[torch.dtype]
    mean: float
    deviation: float

    def check(self, name: str, expected: "_Seen") -> None:
        same_form = (self.n_images, self.shapes, self.dtypes) == (
            expected.n_images,
            expected.shapes,
            expected.dtypes,
        )
        allowed = _TOLERANCE * expected.deviation
        differences = (self.mean - expected.mean, self.deviation - expected.deviation)
        if not same_form or not all(abs(difference) <= allowed for difference in differences):
            raise RuntimeError(
                f"the images of {name} differ from those of the first contender, so their speeds "
                f"cannot be compared: {self}, expected {expected}"
            )


def _look_at(epoch: Iterable[torch.Tensor], workload: Workload) -> _Seen:
    n, shapes, dtypes, means, squares = 0, set(), set(), [], []
    for images in epoch:
        n += len(images)
        shapes.add(tuple(images.shape[1:]))
        dtypes.add(images.dtype)
        values = images.to(workload.device).float()
        means.append(values.mean().item() * len(images))
        squares.append(values.square().mean().item() * len(images))
    mean, square = sum(means) / max(n, 1), sum(squares) / max(n, 1)
    deviation = max(square - mean**2, 0.0) ** 0.5
    return _Seen(n, frozenset(shapes), frozenset(dtypes), mean, deviation)


def _exhaust(epoch: Epoch, device: torch.device) -> None:
    for images in epoch():
        images.to(device, non_blocking=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
