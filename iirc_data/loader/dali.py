"""The decoder that decodes with DALI, on CPU or GPU."""

from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from iirc_data.augment import Augmentation
from iirc_data.errors import LoaderError
from iirc_data.loader.collected import CollectedImages
from iirc_data.loader.dali_pipeline import BATCHES_AHEAD, DaliError, DaliPipeline, Steps
from iirc_data.loader.decoder import DecodeRequest, default_threads, sizes_differ
from iirc_data.loader.fallback import Refused, with_finished
from iirc_data.loader.host_memory import empty
from iirc_data.loader.idle import Idle
from iirc_data.loader.normalization import Normalization
from iirc_data.loader.per_process import PerProcess, keep_untouched
from iirc_data.loader.resize import decode_and_augment, far_larger
from iirc_data.loader.threads import image_threads, submit_parts

_MOST_IDLE = 4  # for training, evaluation and memories, and a spare


class DaliDecoder:
    """Decodes and augments with NVIDIA DALI.

    Each running iterator has its own pipeline, so any number of iterators may take turns or run in
    different threads. When an iterator ends, its pipeline is kept for the next one, up to a few
    pipelines: alternating between training and evaluation builds no new ones. Batches are submitted
    one by one, so an iterator may stop after any batch.

    Pillow decodes the images that DALI refuses or may decode differently, so that both decoders
    return the same pixels.

    Args:
        device: Device of the returned images; on ``cuda`` the GPU decodes and augments.
        threads: Number of CPU threads; by default that of
            :func:`~iirc_data.loader.decoder.default_threads`.
    """

    name = "dali"

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._device = device
        self._threads = threads or default_threads()
        self._idle: PerProcess[Idle[DaliPipeline]] = PerProcess(partial(Idle, _MOST_IDLE))
        self._pool = PerProcess(partial(image_threads, self._threads, "iirc-resize"))
        self._refused = Refused()

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        pipeline: DaliPipeline | None = None
        try:
            for request in map(self._prepared, requests):
                steps = Steps.of(request.augmentation, on_gpu=self._device.type == "cuda")
                n = len(request.encoded)
                if pipeline is None or not pipeline.serves(steps, n):
                    while pipeline is not None and pipeline.under_way:
                        pipeline, images = self._collect(pipeline)
                        yield images
                    previous, pipeline = pipeline, None
                    if previous is not None:
                        self._give_back(previous)
                    pipeline = self._check_out(steps, n)
                while len(pipeline.under_way) >= BATCHES_AHEAD:
                    pipeline, images = self._collect(pipeline)
                    yield images
                pipeline = self._own(pipeline)
                pipeline.submit(request)
            while pipeline is not None and pipeline.under_way:
                pipeline, images = self._collect(pipeline)
                yield images
        finally:
            if pipeline is not None:
                self._give_back(pipeline)

    def close(self) -> None:
        """Release the threads, and the pipelines that no iterator uses."""
        self._idle.get().clear()
        self._pool.get().shutdown()

    def _check_out(self, steps: Steps, batch_size: int) -> DaliPipeline:
        def smallest(idle: list[DaliPipeline]) -> DaliPipeline | None:
            fitting = [pipeline for pipeline in idle if pipeline.serves(steps, batch_size)]
            return min(fitting, key=lambda pipeline: pipeline.max_batch_size, default=None)

        while (pipeline := self._idle.get().take(smallest)) is not None:
            with suppress(DaliError):
                pipeline.discard()
                return pipeline
        return DaliPipeline(steps, batch_size, self._threads, self._device)

    def _give_back(self, pipeline: DaliPipeline) -> None:
        """Keep a pipeline for the next iterator, which discards its in-flight batches.

        They are not discarded here because the garbage collector may call this method. It should
        not wait for DALI, nor call DALI while the interpreter shuts down.
        """
        if not pipeline.is_own:
            keep_untouched(pipeline)
        elif pipeline.is_sound:
            self._idle.get().put(pipeline)

    def _own(self, pipeline: DaliPipeline) -> DaliPipeline:
        """Return a pipeline of this process: an iterator may have been forked half-way."""
        if pipeline.is_own:
            return pipeline
        keep_untouched(pipeline)
        own = self._check_out(pipeline.steps, pipeline.max_batch_size)
        for request in pipeline.under_way:
            own.submit(request)
        return own

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_copying"}

    def _prepared(self, request: DecodeRequest) -> DecodeRequest:
        """Let Pillow finish the images that DALI should not decode."""
        numbers = request.odd | self._refused.among(request)
        if self._device.type == "cuda":  # DALI would resize the whole image
            numbers |= far_larger(request.augmentation)
        prepared = self._finished(request, numbers)
        self._refused.add(request, request.irregular)
        return prepared

    def _finished(self, request: DecodeRequest, numbers: frozenset[int]) -> DecodeRequest:
        if not numbers:
            return request
        ordered = sorted(numbers)
        images = self._pool.get().map(partial(decode_and_augment, request), ordered)
        return with_finished(request, dict(zip(ordered, images, strict=True)))

    def _collect(self, pipeline: DaliPipeline) -> tuple[DaliPipeline, torch.Tensor]:
        """Return the images of the oldest batch and the pipeline that holds the later batches."""
        pipeline, finished = self._own(pipeline), frozenset[int]()
        while True:
            request = pipeline.under_way[0]
            try:
                with pipeline.outputs() as decoded:
                    if pipeline.steps.leaves_size:
                        return pipeline, self._resized(decoded, request)
                    return pipeline, self._copied(decoded, request)
            except DaliError as error:
                culprits = self._culprits(pipeline.steps, request)
                if not culprits - finished:
                    raise _failure(request, culprits, error) from error
                _, *behind = pipeline.under_way
                without = self._finished(request, culprits)
                self._refused.add(request, culprits)
                finished |= culprits
                pipeline = self._check_out(pipeline.steps, pipeline.max_batch_size)
                for waiting in (without, *behind):
                    pipeline.submit(self._prepared(waiting))

    def _culprits(self, steps: Steps, request: DecodeRequest) -> frozenset[int]:
        """Return the numbers of the images that DALI fails to decode."""
        decoder = SingleDecoder(self._device, has_window=steps.has_window)
        numbers = range(len(request.encoded))
        return frozenset(n for n in numbers if decoder.decode(_part(request, n)) is None)

    def _resized(self, decoded: Any, request: DecodeRequest) -> torch.Tensor:
        images = CollectedImages(request)

        def resize(numbers: range) -> None:
            windows = [torch.from_numpy(np.asarray(decoded[number])) for number in numbers]
            images.put(numbers, windows)

        tasks = submit_parts(self._pool.get(), len(request.encoded), self._threads, resize)
        try:
            for task in tasks:
                task.result()
        finally:  # they read DALI's memory
            wait(tasks)
        return images.batch()

    def _copied(self, decoded: Any, request: DecodeRequest) -> torch.Tensor:
        """Copy images out of DALI's memory, which DALI will overwrite."""
        if not decoded.is_dense_tensor():
            raise sizes_differ(request, {tuple(shape[:2]) for shape in decoded.shape()})
        if self._device.type != "cuda":
            images: torch.Tensor = from_dlpack(decoded.as_tensor())
            return _copied_to_host(images, request.normalization)
        # not on the training stream: it may be steps behind, and by the time that it ran the copy
        # DALI would have overwritten the images
        with torch.cuda.stream(self._copying):
            copy: torch.Tensor = from_dlpack(decoded.as_tensor()).clone()
        self._copying.synchronize()
        copy.record_stream(torch.cuda.current_stream(self._device))
        return copy

    @cached_property
    def _copying(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]


def _copied_to_host(images: torch.Tensor, normalization: Normalization | None) -> torch.Tensor:
    dtype = torch.uint8 if normalization is None else torch.float32
    copy = empty(images.shape, dtype, images.device)
    if normalization is None:
        return copy.copy_(images)
    normalization.write(images, copy)
    return copy


class SingleDecoder:
    """Decodes images one by one, to find those that DALI refuses.

    Args:
        device: Device that decodes.
        has_window: Decode only the window of each image.
    """

    def __init__(self, device: torch.device, has_window: bool = False) -> None:
        self._device = device
        self._steps = Steps(has_window, has_resize=False, output_size=None, leaves_size=True)
        self._pipeline: DaliPipeline | None = None

    def decode(self, request: DecodeRequest) -> torch.Tensor | None:
        """Return the image of a batch of one, uint8 (H, W, 3), or None if DALI refuses it."""
        pipeline = self._pipeline or DaliPipeline(self._steps, 1, 1, self._device)
        self._pipeline = None  # a pipeline that fails is not used again
        with suppress(DaliError):
            pipeline.submit(request)
            with pipeline.outputs() as decoded:
                image: torch.Tensor = from_dlpack(decoded[0]).clone()
            self._pipeline = pipeline
            return image
        return None


def _part(request: DecodeRequest, number: int) -> DecodeRequest:
    """Return a request that only decodes one image of a batch."""
    window, part = request.augmentation.window, slice(number, number + 1)
    augmentation = Augmentation(
        None if window is None else window[part],
        None,
        None,
        None,
        request.augmentation.flip[part],
    )
    return DecodeRequest(request.encoded[part], augmentation, lambda _: request.names(number))


def _failure(request: DecodeRequest, culprits: frozenset[int], error: DaliError) -> LoaderError:
    if not culprits:
        return LoaderError(f"DALI failed on a batch from {request.names(0)}: {error}")
    return LoaderError(
        f"DALI cannot decode {request.names(min(culprits))}, not even as an RGB PNG written by "
        "Pillow: make the image smaller, or use the decoder pillow"
    )
