"""The engine that decodes with DALI, on CPU or GPU."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from iirc_data.decoding import decode
from iirc_data.errors import LoaderError
from iirc_data.loader.dali_pipeline import BATCHES_AHEAD, DaliError, DaliPipeline, Steps
from iirc_data.loader.engine import DecodeRequest, default_threads, sizes_differ
from iirc_data.loader.idle import Idle
from iirc_data.loader.memory import empty
from iirc_data.loader.pixels import resize_and_crop, stack

_MOST_IDLE = 4  # training, evaluation, memories, and one more


class DaliEngine:
    """Decodes and augments with NVIDIA DALI.

    Each iterator has a pipeline to itself for as long as it runs, so any number of iterators may
    take turns or run in different threads. A few pipelines are kept when their iterators end:
    training and evaluation alternate without building any. Batches are handed over one by one, so
    an epoch may end anywhere.

    Args:
        device: Where images are wanted; on ``cuda`` the GPU decodes and augments.
        threads: Number of CPU threads; by default see
            :func:`~iirc_data.loader.engine.default_threads`.
    """

    name = "dali"

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._device = device
        self._threads = threads or default_threads()
        self._idle: Idle[DaliPipeline] = Idle(_MOST_IDLE)
        self._pool = ThreadPoolExecutor(self._threads, "iirc-resize")

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.engine.Engine`."""
        pipeline: DaliPipeline | None = None
        try:
            for request in requests:
                steps = Steps.of(request.augmentation, on_gpu=self._device.type == "cuda")
                n = len(request.encoded)
                if pipeline is None or not pipeline.serves(steps, n):
                    while pipeline is not None and pipeline.under_way:
                        yield self._collect(pipeline)
                    previous, pipeline = pipeline, None
                    if previous is not None:
                        self._give_back(previous)
                    pipeline = self._check_out(steps, n)
                while len(pipeline.under_way) >= BATCHES_AHEAD:
                    yield self._collect(pipeline)
                pipeline.submit(request)
            while pipeline is not None and pipeline.under_way:
                yield self._collect(pipeline)
        finally:
            if pipeline is not None:
                self._give_back(pipeline)

    def close(self) -> None:
        """Release the threads, and the pipelines that no iterator uses."""
        self._idle.clear()
        self._pool.shutdown()

    def _check_out(self, steps: Steps, batch_size: int) -> DaliPipeline:
        def smallest(idle: list[DaliPipeline]) -> DaliPipeline | None:
            fitting = [pipeline for pipeline in idle if pipeline.serves(steps, batch_size)]
            return min(fitting, key=lambda pipeline: pipeline.max_batch_size, default=None)

        while (pipeline := self._idle.take(smallest)) is not None:
            with suppress(DaliError):
                pipeline.discard()
                return pipeline
        return DaliPipeline(steps, batch_size, self._threads, self._device)

    def _give_back(self, pipeline: DaliPipeline) -> None:
        """Keep a pipeline for the next iterator, which discards what this one left under way.

        Not discarded here: the garbage collector may call this, and should not wait for DALI, nor
        call it while the interpreter shuts down.
        """
        if pipeline.is_sound:
            self._idle.put(pipeline)

    def _collect(self, pipeline: DaliPipeline) -> torch.Tensor:
        request = pipeline.under_way[0]
        try:
            with pipeline.outputs() as decoded:
                if pipeline.steps.leaves_size:
                    return self._resized(decoded, request)
                return _copied(decoded, request)
        except DaliError as error:
            for number, encoded in enumerate(request.encoded):
                decode(encoded, partial(request.names, number))  # raises for the damaged one
            raise LoaderError(f"DALI failed on a batch from {request.names(0)}: {error}") from error

    def _resized(self, decoded: Any, request: DecodeRequest) -> torch.Tensor:
        def resize(numbers: range) -> list[torch.Tensor]:
            return [
                resize_and_crop(from_dlpack(decoded[number]), request.augmentation, number)
                for number in numbers
            ]

        n = len(request.encoded)
        parts = [range(first, n, self._threads) for first in range(self._threads)]
        images: list[torch.Tensor] = [torch.empty(0)] * n
        for part, resized in zip(parts, self._pool.map(resize, parts), strict=True):
            images[part.start :: self._threads] = resized
        return stack(images, request)


def _copied(decoded: Any, request: DecodeRequest) -> torch.Tensor:
    if not decoded.is_dense_tensor():
        raise sizes_differ(request, {tuple(shape[:2]) for shape in decoded.shape()})
    images: torch.Tensor = from_dlpack(decoded.as_tensor())
    # DALI uses its memory again
    return empty(images.shape, images.dtype, images.device).copy_(images)
