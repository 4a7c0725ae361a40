"""A DALI pipeline that decodes and augments batches in the order of their submission."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from PIL import Image

from iirc_data.augment import Augmentation
from iirc_data.errors import LoaderError
from iirc_data.loader.decoder import DecodeRequest, encode_rgb_png

BATCHES_AHEAD = 2


class DaliError(Exception):
    """DALI failed on a batch; its pipeline can no longer be used."""


class Steps(NamedTuple):
    """The steps of a pipeline.

    Attributes:
        has_window: Decode only a window of each image.
        has_resize: Resize.
        output_size: Height and width of the final crop; None for no crop.
        leaves_size: Return the decoded windows; the caller resizes, crops and mirrors them. On the
            CPU, DALI takes longer to resize than to decode.
    """

    has_window: bool
    has_resize: bool
    output_size: tuple[int, int] | None
    leaves_size: bool

    @classmethod
    def of(cls, augmentation: Augmentation, on_gpu: bool) -> Self:
        """Return the steps that an augmentation needs."""
        has_window, has_resize = augmentation.window is not None, augmentation.resize is not None
        if has_resize and not on_gpu:
            return cls(has_window, False, None, True)
        crops = augmentation.crop is not None
        return cls(has_window, has_resize, augmentation.output_size if crops else None, False)


class DaliPipeline:
    """A running pipeline, used by one iterator at a time.

    Attributes:
        steps: The steps that it carries out.
        max_batch_size: Largest number of images in a batch.
        under_way: The in-flight batches (submitted and not yet collected), the oldest first.
        is_sound: Whether outputs still match the submitted batches. False after a failure, and
            after an interruption that may have left part of a batch in the pipeline.
    """

    def __init__(
        self, steps: Steps, max_batch_size: int, threads: int, device: torch.device
    ) -> None:
        self.steps = steps
        self.max_batch_size = max_batch_size
        self.under_way: deque[DecodeRequest] = deque()
        self.is_sound = True
        self._process = os.getpid()
        try:
            self._pipeline = _build_pipeline(steps, max_batch_size, threads, device)
            # DALI reads the encoded images in place: keep them alive as long as the pipeline
            self._pipeline.under_way = self.under_way
            self._run_for_the_first_time()
        except (RuntimeError, DaliError) as error:  # an old driver, a GPU without memory, ...
            raise LoaderError(
                f"DALI cannot start on {device}: {' '.join(str(error).split())}; choose another "
                "device or the decoder pillow"
            ) from error

    def _run_for_the_first_time(self) -> None:
        """Run on an image of one pixel: DALI's first run fills its whole prefetch queue."""
        blank = DecodeRequest(
            encoded=[encode_rgb_png(Image.new("RGB", (1, 1)))],
            augmentation=Augmentation(
                window=np.array([[0, 0, 1, 1]], np.int32),
                resize=np.array([[1, 1]], np.int32),
                crop=np.array([[0, 0]], np.int32),
                output_size=self.steps.output_size,
                flip=np.zeros(1, dtype=bool),
            ),
            names=lambda _: "a blank image",
        )
        for _ in range(BATCHES_AHEAD):
            self._feed(blank)
        self._pipeline.schedule_run()
        self.discard()

    @property
    def is_own(self) -> bool:
        """Whether this process made it; in a forked one its threads are missing."""
        return self._process == os.getpid()

    def serves(self, steps: Steps, batch_size: int) -> bool:
        """Return whether the pipeline carries out these steps on batches of that size."""
        return self.is_sound and self.steps == steps and batch_size <= self.max_batch_size

    def submit(self, request: DecodeRequest) -> None:
        """Start to decode a batch."""
        self.is_sound = False  # until all inputs are fed
        self._feed(request)
        self._pipeline.schedule_run()
        self.is_sound = True

    def _feed(self, request: DecodeRequest) -> None:
        steps, feed, augmentation = self.steps, self._pipeline.feed_input, request.augmentation
        self.under_way.append(request)
        feed("encoded", request.encoded)
        if not steps.leaves_size:
            feed("flip", augmentation.flip.astype(np.int32))
        if steps.has_window and augmentation.window is not None:
            feed("window_start", np.ascontiguousarray(augmentation.window[:, :2], np.int32))
            feed("window_shape", np.ascontiguousarray(augmentation.window[:, 2:], np.int32))
        if steps.has_resize and augmentation.resize is not None:
            feed("resize", augmentation.resize.astype(np.float32))
        if steps.output_size is not None and augmentation.crop is not None:
            feed("crop", augmentation.crop.astype(np.int32))

    @contextmanager
    def outputs(self) -> Iterator[Any]:
        """Lend the images of the oldest in-flight batch, DALI's list of uint8 (H, W, 3).

        Raises:
            DaliError: DALI failed on the batch, which remains the oldest in-flight one.
        """
        self.is_sound = False  # until DALI has its memory back
        try:
            (images,) = self._pipeline.share_outputs()
        except RuntimeError as error:
            raise DaliError(str(error)) from error
        try:
            yield images
        finally:
            self._pipeline.release_outputs()
            self.under_way.popleft()
            self.is_sound = True

    def discard(self) -> None:
        """Wait for the in-flight batches and discard them.

        Raises:
            DaliError: DALI failed on one of them.
        """
        while self.under_way:
            with self.outputs():
                pass


def _build_pipeline(
    steps: Steps, max_batch_size: int, threads: int, device: torch.device
) -> Pipeline:
    has_window, has_resize, output_size, leaves_size = steps
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(
        batch_size=max_batch_size,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        prefetch_queue_depth=BATCHES_AHEAD,
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
        options = {
            "device": "mixed" if on_gpu else "cpu",
            "output_type": types.RGB,
            "adjust_orientation": False,
            "jpeg_fancy_upsampling": True,  # makes the GPU upsample as the CPU and Pillow do
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
