"""The DALI engine, on CPU or GPU. The only module that imports DALI."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

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

_BATCHES_AHEAD = 2


class DaliEngine:
    """Decodes and augments with NVIDIA DALI.

    A pipeline is built for the first batch and kept for all that ask for the same steps: batches
    are handed to it one by one, so an epoch may end anywhere.

    Args:
        device: Where images are wanted; on ``cuda`` the GPU decodes and augments.
        threads: Number of CPU threads; by default one per processor.
    """

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._device = device
        self._threads = threads or default_threads()
        self._steps: tuple[bool, bool, tuple[int, int] | None] | None = None
        self._pipeline: Any = None
        self._max_batch_size = 0

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.engine.Engine`."""
        pending: deque[DecodeRequest] = deque()
        try:
            for request in requests:
                if self._needs_other_pipeline(request):
                    while pending:
                        yield self._collect(pending.popleft())
                    self._build(request)
                pending.append(request)
                self._submit(request)
                if len(pending) >= _BATCHES_AHEAD:
                    yield self._collect(pending.popleft())
            while pending:
                yield self._collect(pending.popleft())
        finally:
            if pending:  # abandoned half-way: what is under way belongs to nobody
                self._drain(len(pending))

    def close(self) -> None:
        """Release the pipeline."""
        self._pipeline = self._steps = None

    def _needs_other_pipeline(self, request: DecodeRequest) -> bool:
        return _steps(request.augmentation) != self._steps or (
            len(request.encoded) > self._max_batch_size
        )

    def _build(self, request: DecodeRequest) -> None:
        steps = _steps(request.augmentation)
        self._max_batch_size = max(len(request.encoded), self._max_batch_size)
        self._pipeline = _build_pipeline(steps, self._max_batch_size, self._threads, self._device)
        self._steps = steps
        # the first run of a pipeline is run once per batch ahead: spend these on a 1x1 image
        blank = Augmentation(
            window=np.array([[0, 0, 1, 1]], np.int32),
            resize=np.array([[1, 1]], np.int32),
            crop=np.array([[0, 0]], np.int32),
            output_size=steps[2],
            flip=np.zeros(1, dtype=bool),
        )
        for _ in range(_BATCHES_AHEAD):
            self._feed([encode_rgb_png(Image.new("RGB", (1, 1)))], blank)
        self._pipeline.schedule_run()
        self._drain(_BATCHES_AHEAD)

    def _feed(self, encoded: list[NDArray[np.uint8]], augmentation: Augmentation) -> None:
        has_window, has_resize, output_size = self._steps or (False, False, None)
        feed = self._pipeline.feed_input
        feed("encoded", encoded)
        feed("flip", augmentation.flip.astype(np.int32))
        if has_window and augmentation.window is not None:
            feed("window_start", np.ascontiguousarray(augmentation.window[:, :2]))
            feed("window_shape", np.ascontiguousarray(augmentation.window[:, 2:]))
        if has_resize and augmentation.resize is not None:
            feed("resize", augmentation.resize.astype(np.float32))
        if output_size is not None:
            crop = augmentation.crop
            feed("crop", np.zeros((len(encoded), 2), np.int32) if crop is None else crop)

    def _submit(self, request: DecodeRequest) -> None:
        self._feed(request.encoded, request.augmentation)
        self._pipeline.schedule_run()

    def _collect(self, request: DecodeRequest) -> torch.Tensor:
        try:
            (output,) = self._pipeline.share_outputs()
        except RuntimeError as error:
            self.close()  # a pipeline that failed stays unusable
            for number, encoded in enumerate(request.encoded):
                decode(encoded, partial(request.names, number))  # raises for the damaged one
            raise LoaderError(f"DALI failed on a batch from {request.names(0)}: {error}") from error
        try:
            if not output.is_dense_tensor():
                sizes = {tuple(shape[:2]) for shape in output.shape()}
                raise sizes_differ(request, sizes)
            images = from_dlpack(output.as_tensor())
            return images.clone()  # DALI uses its memory again
        finally:
            self._pipeline.release_outputs()

    def _drain(self, n: int) -> None:
        for _ in range(n):
            if self._pipeline is None:
                return
            try:
                self._pipeline.share_outputs()
                self._pipeline.release_outputs()
            except RuntimeError:
                self.close()


def _steps(augmentation: Augmentation) -> tuple[bool, bool, tuple[int, int] | None]:
    crops = augmentation.crop is not None
    return (
        augmentation.window is not None,
        augmentation.resize is not None,
        augmentation.output_size if crops else None,
    )


def _build_pipeline(
    steps: tuple[bool, bool, tuple[int, int] | None],
    max_batch_size: int,
    threads: int,
    device: torch.device,
) -> Any:
    has_window, has_resize, output_size = steps
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
        flip = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
        images = fn.flip(images, horizontal=flip, vertical=0)
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline
