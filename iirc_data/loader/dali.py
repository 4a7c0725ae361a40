"""The DALI engine, on CPU or GPU. The only module that imports DALI."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types
from PIL import Image
from torch.utils.dlpack import from_dlpack

from iirc_data.augment import Augmentation
from iirc_data.decoding import decode
from iirc_data.errors import LoaderError
from iirc_data.loader.engine import (
    DecodeRequest,
    default_threads,
    encode_rgb_png,
    sizes_differ,
)
from iirc_data.loader.memory import empty
from iirc_data.loader.pixels import resize_and_crop, stack

_BATCHES_AHEAD = 2


class DaliEngine:
    """Decodes and augments with NVIDIA DALI.

    A pipeline is built when steps are first asked for and kept for all that ask for the same:
    training and evaluation take turns without building any. Batches are handed to it one by one,
    so an epoch may end anywhere.

    Args:
        device: Where images are wanted; on ``cuda`` the GPU decodes and augments.
        threads: Number of CPU threads; by default one per processor.
    """

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._device = device
        self._threads = threads or default_threads()
        self._pipelines: dict[_Steps, _DaliPipeline] = {}
        self._pool = ThreadPoolExecutor(self._threads, "iirc-resize")

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.engine.Engine`."""
        pending: deque[DecodeRequest] = deque()
        pipeline = None
        try:
            for request in requests:
                needed = self._pipeline_for(request)
                while pending and (needed is not pipeline or len(pending) >= _BATCHES_AHEAD):
                    assert pipeline is not None
                    yield self._collect(pipeline, pending.popleft())
                pipeline = needed
                pending.append(request)
                pipeline.submit(request)
            while pending and pipeline is not None:
                yield self._collect(pipeline, pending.popleft())
        finally:
            if pending and pipeline is not None:  # left half-way: what is under way is nobody's
                self._drain(pipeline, len(pending))

    def close(self) -> None:
        """Release the pipelines and threads."""
        self._pipelines.clear()
        self._pool.shutdown()

    def _pipeline_for(self, request: DecodeRequest) -> "_DaliPipeline":
        steps = _Steps.of(request.augmentation, on_gpu=self._device.type == "cuda")
        pipeline = self._pipelines.get(steps)
        if pipeline is None or len(request.encoded) > pipeline.max_batch_size:
            pipeline = _DaliPipeline(steps, len(request.encoded), self._threads, self._device)
            self._pipelines[steps] = pipeline
        return pipeline

    def _collect(self, pipeline: "_DaliPipeline", request: DecodeRequest) -> torch.Tensor:
        try:
            with pipeline.outputs() as decoded:
                if pipeline.steps.leaves_size:
                    return self._resized(decoded, request)
                return _copied(decoded, request)
        except RuntimeError as error:
            self._give_up(pipeline)
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

    def _drain(self, pipeline: "_DaliPipeline", n: int) -> None:
        try:
            pipeline.drain(n)
        except RuntimeError:
            self._give_up(pipeline)

    def _give_up(self, pipeline: "_DaliPipeline") -> None:
        if self._pipelines.get(pipeline.steps) is pipeline:  # one that failed stays unusable
            del self._pipelines[pipeline.steps]


class _Steps(NamedTuple):
    """What a pipeline does to images.

    Attributes:
        has_window: It decodes a window.
        has_resize: It resizes.
        output_size: What it crops to.
        leaves_size: It ends with the decoded window; whoever collects it resizes, crops and
            mirrors. DALI's resizing on the CPU takes longer than its decoding.
    """

    has_window: bool
    has_resize: bool
    output_size: tuple[int, int] | None
    leaves_size: bool

    @classmethod
    def of(cls, augmentation: Augmentation, on_gpu: bool) -> Self:
        has_window, has_resize = augmentation.window is not None, augmentation.resize is not None
        if has_resize and not on_gpu:
            return cls(has_window, False, None, True)
        crops = augmentation.crop is not None
        return cls(has_window, has_resize, augmentation.output_size if crops else None, False)


class _DaliPipeline:
    """A running pipeline; batches come out in the order in which they went in."""

    def __init__(
        self, steps: _Steps, max_batch_size: int, threads: int, device: torch.device
    ) -> None:
        self.steps = steps
        self.max_batch_size = max_batch_size
        self._pipeline = _build_pipeline(steps, max_batch_size, threads, device)
        # the first run of a pipeline is run once per batch ahead: spend these on a 1x1 image
        blank = Augmentation(
            window=np.array([[0, 0, 1, 1]], np.int32),
            resize=np.array([[1, 1]], np.int32),
            crop=np.array([[0, 0]], np.int32),
            output_size=steps.output_size,
            flip=np.zeros(1, dtype=bool),
        )
        for _ in range(_BATCHES_AHEAD):
            self._feed([encode_rgb_png(Image.new("RGB", (1, 1)))], blank)
        self._pipeline.schedule_run()
        self.drain(_BATCHES_AHEAD)

    def submit(self, request: DecodeRequest) -> None:
        """Begin a batch."""
        self._feed(request.encoded, request.augmentation)
        self._pipeline.schedule_run()

    def _feed(self, encoded: list[NDArray[np.uint8]], augmentation: Augmentation) -> None:
        steps, feed = self.steps, self._pipeline.feed_input
        feed("encoded", encoded)
        if not steps.leaves_size:
            feed("flip", augmentation.flip.astype(np.int32))
        if steps.has_window and augmentation.window is not None:
            feed("window_start", np.ascontiguousarray(augmentation.window[:, :2]))
            feed("window_shape", np.ascontiguousarray(augmentation.window[:, 2:]))
        if steps.has_resize and augmentation.resize is not None:
            feed("resize", augmentation.resize.astype(np.float32))
        if steps.output_size is not None:
            feed("crop", augmentation.crop)

    @contextmanager
    def outputs(self) -> Iterator[Any]:
        """Lend the images of the oldest batch under way, DALI's list of uint8 (H, W, 3)."""
        (images,) = self._pipeline.share_outputs()
        try:
            yield images
        finally:
            self._pipeline.release_outputs()

    def drain(self, n: int) -> None:
        """Let go of the oldest batches under way."""
        for _ in range(n):
            with self.outputs():
                pass


def _copied(decoded: Any, request: DecodeRequest) -> torch.Tensor:
    if not decoded.is_dense_tensor():
        raise sizes_differ(request, {tuple(shape[:2]) for shape in decoded.shape()})
    images: torch.Tensor = from_dlpack(decoded.as_tensor())
    # DALI uses its memory again
    return empty(images.shape, images.dtype, images.device).copy_(images)


def _build_pipeline(
    steps: _Steps,
    max_batch_size: int,
    threads: int,
    device: torch.device,
) -> Any:
    has_window, has_resize, output_size, leaves_size = steps
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(
        batch_size=max_batch_size,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        prefetch_queue_depth=_BATCHES_AHEAD,
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
        options = {
            "device": "mixed" if on_gpu else "cpu",
            "output_type": types.RGB,
            "adjust_orientation": False,
            "jpeg_fancy_upsampling": True,  # on the GPU too, as on the CPU and in Pillow
        }
        if has_window:
            start = fn.external_source(name="window_start", dtype=types.INT32, ndim=1)
            shape = fn.external_source(name="window_shape", dtype=types.INT32, ndim=1)
            images = fn.decoders.image_slice(encoded, start, shape, axes=(0, 1), **options)
        else:
            images = fn.decoders.image(encoded, **options)
        if has_resize:
            size = fn.external_source(name="resize", dtype=types.FLOAT, ndim=1)
            images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
        if output_size is not None:
            crop = fn.external_source(name="crop", dtype=types.INT32, ndim=1)
            images = fn.slice(
                images,
                crop,
                list(output_size),
                axes=(0, 1),
                normalized_anchor=False,
                normalized_shape=False,
                out_of_bounds_policy="pad",
                fill_values=0,
            )
        if not leaves_size:
            flip = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
            images = fn.flip(images, horizontal=flip, vertical=0)
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline
