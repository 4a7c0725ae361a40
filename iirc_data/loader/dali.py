"""The decoder that decodes with DALI, on CPU or GPU."""

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from iirc_data.errors import LoaderError
from iirc_data.loader.collected import CollectedImages
from iirc_data.loader.dali_graph import Decoding, Steps, are_small
from iirc_data.loader.dali_pipeline import BATCHES_AHEAD, DaliError, DaliPipeline, copied_on_gpu
from iirc_data.loader.decoder import (
    DecodeRequest,
    Requests,
    default_threads,
    sizes_differ,
    with_number,
)
from iirc_data.loader.fallback import Refused, with_finished
from iirc_data.loader.host_memory import empty
from iirc_data.loader.idle import Idle
from iirc_data.loader.normalization import Normalization
from iirc_data.loader.per_process import PerProcess, keep_untouched
from iirc_data.loader.resize import decode_and_augment, far_larger
from iirc_data.loader.single_decoder import SingleDecoder, part_of
from iirc_data.loader.threads import image_threads, submit_parts
from iirc_data.loader.window_probe import WindowDecoding, window_decoding

_MOST_IDLE = 4  # for training, evaluation and memories, and a spare


class DaliDecoder:
    """Decodes and augments with NVIDIA DALI.

    Each running iterator has its own pipeline, so any number of iterators may take turns or run in
    different threads. When an iterator ends, its pipeline is kept for the next one, up to a few
    pipelines: alternating between training and evaluation builds no new ones. Batches are submitted
    one by one, so an iterator may stop after any batch.

    Pillow decodes the images that DALI refuses or may decode differently, so that both decoders
    return the same pixels on a CPU. On a GPU, JPEG decoding and resizing differ by more than
    rounding.

    Args:
        device: Device of the returned images; on ``cuda`` the GPU decodes and augments.
        threads: Number of CPU threads; by default that of
            :func:`~iirc_data.loader.decoder.default_threads`.
        hw_decoder_load: Fraction, from 0 to 1, of a batch's JPEGs for the GPU's JPEG engine.
    """

    name = "dali"

    def __init__(
        self, device: torch.device, threads: int | None = None, hw_decoder_load: float = 0.0
    ) -> None:
        self._device = with_number(device)
        self._hw_decoder_load = hw_decoder_load
        self._threads = threads or default_threads()
        self._idle: PerProcess[Idle[DaliPipeline]] = PerProcess(partial(Idle, _MOST_IDLE))
        self._pool = PerProcess(partial(image_threads, self._threads, "iirc-resize"))
        self._refused = Refused()

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        pipeline: DaliPipeline | None = None
        try:
            prepared = Requests.of(requests).map(self._prepared)
            while True:
                while pipeline is not None and pipeline.under_way and not prepared.is_ready():
                    pipeline, images = self._collect(pipeline)
                    yield images
                if (request := next(prepared, None)) is None:
                    break
                steps = self._steps(request)
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

    def _steps(self, request: DecodeRequest) -> Steps:
        if self._device.type != "cuda":
            return Steps.of(request.augmentation, on_gpu=False)
        decoding = Decoding(
            "mixed",
            request.augmentation.window is None or self.window_decoding.works,
            self._hw_decoder_load,
            are_small(request.most_pixels),
        )
        return Steps.of(request.augmentation, on_gpu=True, decoding=decoding)

    @cached_property
    def window_decoding(self) -> WindowDecoding:
        """Whether the GPU decodes windows of images; tried once on a machine."""
        found = window_decoding(self._device, hw_decoder_load=self._hw_decoder_load)
        if not found.works:
            warnings.warn(
                f"{self._device} does not decode windows of images ({found.reason}): it decodes "
                "whole images and cuts the windows out, which takes longer",
                stacklevel=2,
            )
        return found

    def resolved(self, has_windows: bool) -> dict[str, Any]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        if self._device.type != "cuda":
            return {}
        found: dict[str, Any] = {"hw_decoder_load": self._hw_decoder_load}
        if has_windows:
            works, reason = self.window_decoding
            found["decoded_part"] = "window" if works else f"whole image ({reason})"
        return found

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
        decoder = SingleDecoder(self._device, steps.has_window, steps.decoding)
        numbers = range(len(request.encoded))
        return frozenset(n for n in numbers if decoder.decode(part_of(request, n)) is None)

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
        if self._device.type == "cuda":
            return copied_on_gpu(decoded, self._device)
        return _copied_to_host(from_dlpack(decoded.as_tensor()), request.normalization)


def _copied_to_host(images: torch.Tensor, normalization: Normalization | None) -> torch.Tensor:
    dtype = torch.uint8 if normalization is None else torch.float32
    copy = empty(images.shape, dtype, images.device)
    if normalization is None:
        return copy.copy_(images)
    normalization.write(images, copy)
    return copy


def _failure(request: DecodeRequest, culprits: frozenset[int], error: DaliError) -> LoaderError:
    if not culprits:
        return LoaderError(f"DALI failed on a batch from {request.names(0)}: {error}")
    return LoaderError(
        f"DALI cannot decode {request.names(min(culprits))}, not even as an RGB PNG written by "
        "Pillow: make the image smaller, or use the decoder pillow"
    )
