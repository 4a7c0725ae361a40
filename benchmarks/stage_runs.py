"""The stages that :mod:`benchmarks.stages` times, each as a function."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import bottleneck, limits
from benchmarks.contenders import UnavailableError, Workload
from iirc_data.augment import Augmentation, uniform
from iirc_data.loader import Decoder, Loader, Normalization, make_loader
from iirc_data.loader.batch import on_device
from iirc_data.loader.decoder import DecodeRequest
from iirc_data.loader.epoch_samples import EpochSamples
from iirc_train.config.network import image_size_of
from iirc_train.methods.finetune import Model
from iirc_train.run.resolved import resolved_precision
from iirc_train.runtime.waiting import Waiting

Run = Callable[[], int]
"""Runs a stage, and returns its number of images."""


class Prepared(NamedTuple):
    """The work of an epoch, with what each stage needs of the stages before it.

    Attributes:
        samples: The samples.
        numbers: int64 (N,) for each batch, numbers of its samples.
        augmentations: The augmentation of each batch.
        requests: The decode request of each batch.
        pixels: uint8 (N, H, W, 3), the first batch as its decoder returns it.
    """

    samples: EpochSamples
    numbers: list[NDArray[np.int64]]
    augmentations: list[Augmentation]
    requests: list[DecodeRequest]
    pixels: torch.Tensor

    @property
    def n_images(self) -> int:
        """Number of images of the epoch."""
        return sum(map(len, self.numbers))


def in_batches(workload: Workload) -> tuple[EpochSamples, list[NDArray[np.int64]]]:
    """Return the samples of an epoch and, for each batch, their numbers in random order."""
    samples = EpochSamples(workload.view, workload.store, None)
    order, size = np.random.default_rng(0).permutation(len(samples)), workload.batch_size
    return samples, [order[start : start + size] for start in range(0, len(order), size)]


def read(samples: EpochSamples, numbers: list[NDArray[np.int64]]) -> int:
    """Read batches of encoded images; announce each while the one before it is read.

    Returns:
        The number of images.
    """
    ids = [samples.view.sample_ids[part] for part in numbers]
    samples.store.will_read(ids[0])
    for part, following in zip(ids, [*ids[1:], ids[0][:0]], strict=True):
        samples.store.will_read(following)
        samples.store.read_many(part)
    return sum(map(len, ids))


def draw(
    workload: Workload, samples: EpochSamples, numbers: list[NDArray[np.int64]]
) -> list[Augmentation]:
    """Draw the augmentation parameters of batches."""
    transform, start, drawn = workload.transforms.train, 0, []
    for part in numbers:
        stop = start + len(part)
        heights, widths = samples.sizes[part].T
        random = uniform(0, 0, start, stop, transform.n_random)
        drawn.append(transform.parameters(heights, widths, random))
        start = stop
    return drawn


def prepared(workload: Workload, decoder: Decoder) -> Prepared:
    """Prepare the work of an epoch in random order."""
    samples, numbers = in_batches(workload)
    augmentations = draw(workload, samples, numbers)
    work = zip(numbers, augmentations, strict=True)
    requests = list(samples.requests(np.concatenate(numbers), work))
    (pixels,) = decoder.images(requests[:1])
    return Prepared(samples, numbers, augmentations, requests, pixels)


def stages_of_loading(
    workload: Workload, work: Prepared, decoder: Decoder, stack: ExitStack
) -> dict[str, Run]:
    """Return the stages of the loader that this machine has.

    Args:
        workload: The workload.
        work: Its prepared work.
        decoder: The loader's decoder.
        stack: Releases what the stages use.
    """
    samples, numbers, requests, n = work.samples, work.numbers, work.requests, work.n_images
    device, pixels = workload.device, work.pixels
    normalization = Normalization(workload.transforms.mean, workload.transforms.std)
    on_host, shown = pixels.cpu(), on_device(pixels, device).permute(0, 3, 1, 2)

    def request() -> int:
        drawn = zip(numbers, work.augmentations, strict=True)
        return sum(len(made.encoded) for made in samples.requests(np.concatenate(numbers), drawn))

    def repeated(one: Callable[[], object]) -> int:
        for _ in numbers:
            one()
        return len(numbers) * len(pixels)

    stages: dict[str, Run] = {
        bottleneck.READ: lambda: read(samples, numbers),
        bottleneck.PARAMETERS: lambda: n if draw(workload, samples, numbers) else 0,
        bottleneck.REQUEST: request,
    }
    try:
        decoding = (limits.dali if decoder.name == "dali" else limits.pillow)(workload, stack)
        stages[bottleneck.DECODE] = lambda: n if decoding() == () else 0
    except UnavailableError:
        pass
    if decoder.name == "dali":
        stages[bottleneck.FEED] = _feeding(requests, workload)
    stages[bottleneck.DECODER] = lambda: sum(map(len, decoder.images(requests)))
    if device.type == "cuda" and not pixels.is_cuda:
        stages[bottleneck.TRANSFER] = lambda: repeated(lambda: on_device(on_host, device))
    stages[bottleneck.NORMALIZE] = lambda: repeated(lambda: normalization(shown))
    return stages


def _feeding(requests: list[DecodeRequest], workload: Workload) -> Run:
    """Return the stage that only gives DALI its inputs and takes its outputs."""
    from iirc_data.loader.dali_graph import Steps
    from iirc_data.loader.dali_pipeline import BATCHES_AHEAD, DaliPipeline

    steps = Steps.of(requests[0].augmentation, on_gpu=workload.device.type == "cuda")
    pipeline = DaliPipeline(steps, workload.batch_size, workload.workers, workload.device)

    def feed() -> int:
        for request in requests:
            while len(pipeline.under_way) >= BATCHES_AHEAD:
                with pipeline.outputs():
                    pass
            pipeline.submit(request)
        pipeline.discard()
        return sum(len(request.encoded) for request in requests)

    return feed


class WithNetwork:
    """The loader and the step of a network, each alone and together.

    Args:
        workload: The workload.
        decoder: The loader's decoder.
        network: Name of the network.
        precision: See the setting ``precision``.
        steps: Most steps of a run. If images are resident, a run is an epoch, because their loader
            augments many batches at a time.

    Attributes:
        is_resident: Whether the loader keeps decoded images.
        waiting_shares: Fraction of the time in which the network waited for images, for each run
            of both together.
    """

    def __init__(
        self, workload: Workload, decoder: Decoder, network: str, precision: str, steps: int
    ) -> None:
        self._device = workload.device
        self._loader = make_loader(
            workload.view,
            workload.store,
            transforms=workload.transforms,
            train=True,
            batch_size=workload.batch_size,
            device=workload.device,
            decoder=decoder,
        )
        self.is_resident = self._loader.is_resident
        n_batches = len(self._loader)
        self._steps = n_batches if self.is_resident else min(steps, n_batches)
        self._epochs = count()
        self._method = Model([1], {"image": 0}, {"network": network, "lr": 0.01})
        self._method.to(workload.device).to(memory_format=torch.channels_last)
        if resolved_precision(precision, workload.device, image_size_of(workload.preset)) == "bf16":
            self._method.autocast_dtype = torch.bfloat16
        self._method.prepare_model_for_new_task()
        self._method.train()
        self._batch = next(iter(self._loader))
        self.waiting_shares: list[float] = []

    @property
    def stages(self) -> dict[str, Run]:
        """The stages."""
        return {
            bottleneck.LOADER: self._load,
            bottleneck.STEP: self._step,
            bottleneck.RUN: self._train,
        }

    def _epoch(self) -> Loader:
        self._loader.set_epoch(next(self._epochs))
        return self._loader

    def _load(self) -> int:
        return sum(map(len, self._epoch()))

    def _step(self) -> int:
        for _ in range(self._steps):
            self._method.training_step(self._batch)
        return self._steps * len(self._batch)

    def _train(self) -> int:
        waiting, n, started = Waiting.on(self._device), 0, time.perf_counter()
        for batch in waiting.each(islice(self._epoch(), self._steps)):
            self._method.training_step(batch)
            n += len(batch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.waiting_shares.append(waiting.seconds() / (time.perf_counter() - started))
        return n
