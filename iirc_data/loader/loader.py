"""The loader: batches of a view's samples and replayed memories, in a reproducible order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.augment import Augmentation, PerDataset, uniform
from iirc_data.errors import LoaderError
from iirc_data.loader.batch import Batch, indicator_targets, on_device
from iirc_data.loader.decoder import Decoder, DecodeRequest
from iirc_data.loader.epoch_samples import EpochSamples
from iirc_data.loader.normalization import Normalization, normalize_each
from iirc_data.loader.operations import changed
from iirc_data.loader.resident import ResidentImages
from iirc_data.order import (
    batch_bounds,
    bounded_order,
    endless_order,
    epoch_order,
    global_batch_bounds,
    memories_of_epoch,
)

RESIDENT_CHUNK = 2048  # images augmented at a time


@dataclass(frozen=True)
class Part:
    """One process's part of a batch.

    Attributes:
        numbers: int64 (N,), the numbers of its samples.
        spans: The positions, each (start, stop), whose random numbers augment the samples.
        share: Its share of the batch.
    """

    numbers: NDArray[np.int64]
    spans: list[tuple[int, int]]
    share: float


class Loader:
    """Iterates over batches; made by :func:`~iirc_data.loader.make.make_loader`."""

    def __init__(
        self,
        samples: EpochSamples,
        *,
        replay_multiplier: float,
        transform: PerDataset,
        normalizations: tuple[Normalization, ...],
        batch_size: int,
        shuffle: bool,
        endless: bool,
        order_blocks: int | None,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
        decoder: Decoder,
        is_resident: bool,
    ) -> None:
        self._samples = samples
        self._multiplier = replay_multiplier
        self._transform = transform.of_datasets(samples.present)
        self._normalizations = normalizations
        self._shuffle = shuffle
        self._endless = endless
        self._order_blocks = order_blocks
        self._seed = seed
        self._device = device
        self._decoder = decoder
        self._epoch = self._first_batch = 0
        self._is_last = False
        self._n = len(self._numbers(0))
        if endless and self._n > (n := max(1, batch_size * world_size)):
            self._n = -(-self._n // n) * n
        own = batch_bounds(self._n, batch_size, rank, world_size)
        if 0 < self._n < world_size:
            raise LoaderError(
                f"{self._n} samples cannot be divided among {world_size} processes: read them in "
                "one, with world_size=1"
            )
        shared = global_batch_bounds(self._n, batch_size, world_size)
        self._batches = [
            (*bounds, (bounds[1] - bounds[0]) / (stop - start))
            for bounds, (start, stop) in zip(own, shared, strict=True)
        ]
        self._batches_at_once = max(1, RESIDENT_CHUNK // batch_size) if is_resident else 1
        self._is_resident = is_resident
        self._resident: ResidentImages | None = None
        self._decoding = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in self.__dict__.items() if name != "_decoding"} | {
            "_resident": None
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._decoding = Lock()

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._batches)

    @property
    def n_samples(self) -> int:
        """Number of samples in an epoch over all ranks, including replayed ones."""
        return self._n

    @property
    def is_resident(self) -> bool:
        """Whether the decoded images are kept on the device."""
        return self._is_resident

    def set_epoch(self, epoch: int, first_batch: int = 0, *, is_last: bool = False) -> None:
        """Set the epoch, and the first batch of it, of the iterators created from now on.

        Args:
            epoch: Number of the epoch.
            first_batch: Number of the first batch; earlier batches are not read.
            is_last: Whether no epoch follows. Otherwise the first images of the next epoch are
                fetched ahead while the last ones of this epoch are used, if they are shuffled.

        Raises:
            ValueError: A number is negative.
        """
        if epoch < 0 or first_batch < 0:
            raise ValueError(f"expected epoch, first_batch >= 0, got {epoch}, {first_batch}")
        self._epoch, self._first_batch, self._is_last = epoch, first_batch, is_last

    def ids_of_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return the sample ids of the view's images that this process reads in an epoch, in order.

        Args:
            epoch: Number of the epoch.
        """
        return self._samples.ids_in_view(self._own_numbers(epoch))

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the current epoch; later calls of :meth:`set_epoch` do not change it."""
        return self._batches_of(self._epoch, self._first_batch, self._is_last)

    def _batches_of(self, epoch: int, first_batch: int, is_last: bool) -> Iterator[Batch]:
        left = self._parts_of(epoch, first_batch)
        chunks = [
            left[first : first + self._batches_at_once]
            for first in range(0, len(left), self._batches_at_once)
        ]
        chosen = [np.concatenate([part.numbers for part in chunk]) for chunk in chunks]
        drawn: deque[Augmentation] = deque()

        def work() -> Iterator[tuple[NDArray[np.int64], Augmentation]]:
            for numbers, chunk in zip(chosen, chunks, strict=True):
                spans = [span for part in chunk for span in part.spans]
                drawn.append(self._augmentation(numbers, spans, epoch))
                yield numbers, drawn[-1]

        following = partial(self._own_numbers, epoch + 1) if self._shuffle and not is_last else None
        pixels_of_chunks = self._pixels(chosen, work(), following)
        for chunk, numbers, pixels in zip(chunks, chosen, pixels_of_chunks, strict=True):
            images = changed(on_device(pixels, self._device), drawn.popleft().operations)
            yield from self._split(chunk, numbers, images)

    def _parts_of(self, epoch: int, first_batch: int) -> Sequence[Part]:
        """Return this process's part of each batch of an epoch, from the given batch on."""
        shown = self._shown(epoch)
        return [
            Part(shown[start:stop], [(start, stop)], share)
            for start, stop, share in self._batches[first_batch:]
        ]

    def _own_numbers(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of this process's samples in an epoch, in order."""
        shown = self._shown(epoch)
        return np.concatenate([shown[:0], *(shown[start:stop] for start, stop, _ in self._batches)])

    def _shown(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of an epoch's samples in the order of the epoch."""
        numbers = self._numbers(epoch)
        if self._endless and self._n:
            start = epoch * self._n
            order = endless_order(len(numbers), seed=self._seed, start=start, stop=start + self._n)
        elif self._shuffle and self._order_blocks is not None:
            blocks = self._samples.blocks[numbers]
            order = bounded_order(blocks, budget=self._order_blocks, seed=self._seed, epoch=epoch)
        else:
            order = epoch_order(self._n, seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        return numbers[order]

    def _numbers(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of an epoch's samples before shuffling."""
        n_view = len(self._samples.view)
        n_memories = len(self._samples) - n_view
        memories = memories_of_epoch(n_memories, self._multiplier, self._seed, epoch)
        return np.concatenate([np.arange(n_view), n_view + memories])

    def _augmentation(
        self, numbers: NDArray[np.int64], spans: list[tuple[int, int]], epoch: int
    ) -> Augmentation:
        n = self._transform.n_random
        random = [uniform(self._seed, epoch, start, stop, n) for start, stop in spans]
        heights, widths = self._samples.sizes[numbers].T
        datasets = self._samples.datasets(numbers)
        return self._transform.parameters(datasets, heights, widths, np.concatenate(random))

    def _pixels(
        self,
        chosen: list[NDArray[np.int64]],
        work: Iterable[tuple[NDArray[np.int64], Augmentation]],
        following: Callable[[], NDArray[np.int64]] | None,
    ) -> Iterator[torch.Tensor]:
        if not self._is_resident:
            order = np.concatenate([*chosen, np.empty(0, np.int64)])
            requests = self._samples.requests(order, work, following)
            yield from self._decoder.images(requests.map(self._completed))
            return
        with self._decoding:  # only once, even with iterators in several threads
            if self._resident is None:
                self._resident = ResidentImages(self._samples, self._decoder, self._device)
        for part in work:
            yield self._resident.augmented(*part)

    def _completed(self, request: DecodeRequest) -> DecodeRequest:
        """Let the decoder normalise on a CPU, where the pixels of an image are in the cache."""
        is_common = len(set(self._normalizations)) == 1
        if self._device.type != "cpu" or not is_common or request.augmentation.operations:
            return request
        return replace(request, normalization=self._normalizations[0])

    def _normalized(self, images: torch.Tensor, numbers: NDArray[np.int64]) -> torch.Tensor:
        if not self._normalizations or images.dtype != torch.uint8:
            return images
        datasets = self._samples.datasets(numbers)
        if datasets is None or len(set(self._normalizations)) == 1:
            return self._normalizations[0](images)
        return normalize_each(images, self._normalizations, datasets)

    def _split(
        self, chunk: Sequence[Part], numbers: NDArray[np.int64], pixels: torch.Tensor
    ) -> Iterator[Batch]:
        images = self._normalized(pixels.permute(0, 3, 1, 2), numbers)
        if self._samples.are_features:
            images = images.flatten(1)
        n_classes = self._samples.view.n_seen_classes
        targets = indicator_targets(self._samples.labels[numbers], n_classes)
        targets = on_device(targets, self._device)
        is_replayed = self._is_replayed(chunk, numbers)
        in_buffer = on_device(torch.from_numpy(is_replayed), self._device)
        sample_ids = torch.from_numpy(self._samples.sample_ids[numbers])
        stop = 0
        for part in chunk:
            start, stop = stop, stop + len(part.numbers)
            batch = Batch(
                images[start:stop],
                targets[start:stop],
                in_buffer[start:stop],
                sample_ids[start:stop],
                part.share,
            )
            yield self._finished(batch, part)

    def _is_replayed(self, chunk: Sequence[Part], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._samples.is_replayed(numbers)

    def _finished(self, batch: Batch, part: Part) -> Batch:
        return batch
