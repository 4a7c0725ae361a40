"""A DALI pipeline that decodes and augments batches in the order of their submission."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline
from PIL import Image

from iirc_data.augment import Augmentation
from iirc_data.errors import LoaderError
from iirc_data.loader.dali_graph import Steps, images_of
from iirc_data.loader.decoder import DecodeRequest

BATCHES_AHEAD = 2
_WARM_UP_SIZE = 16  # pixels; one block of a JPEG with halved chroma


class DaliError(Exception):
    """DALI failed on a batch; its pipeline can no longer be used."""


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
        self._device = device
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
        """Run on a tiny JPEG: DALI's first run fills its whole prefetch queue.

        A JPEG with halved chroma, as most photographs are, also makes nvJPEG ready; it decodes no
        PNG.
        """
        size = _WARM_UP_SIZE
        blank = DecodeRequest(
            encoded=[_blank_jpeg(size)],
            augmentation=Augmentation(
                window=np.array([[0, 0, size, size]], np.int32),
                resize=np.array([[size, size]], np.int32),
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
        if steps.resize is not None and augmentation.resize is not None:
            feed("resize", augmentation.resize.astype(np.float32))
        if steps.output_size is not None and augmentation.crop is not None:
            feed("crop", augmentation.crop.astype(np.int32))

    @contextmanager
    def outputs(self) -> Iterator[Any]:
        """Lend the images of the oldest in-flight batch, DALI's list of uint8 (H, W, 3).

        On a GPU they are ready in torch's current stream; the host does not wait for them.

        Raises:
            DaliError: DALI failed on the batch, which remains the oldest in-flight one.
        """
        self.is_sound = False  # until DALI has its memory back
        try:
            (images,) = self._shared()
        except RuntimeError as error:
            raise DaliError(str(error)) from error
        try:
            yield images
        finally:
            self._pipeline.release_outputs()
            self.under_way.popleft()
            self.is_sound = True

    def _shared(self) -> Any:
        if self._device.type != "cuda":
            return self._pipeline.share_outputs()
        with torch.cuda.device(self._device):  # the default stream is that of the current device
            return self._pipeline.share_outputs(cuda_stream=torch.cuda.current_stream())

    def discard(self) -> None:
        """Wait for the in-flight batches and discard them.

        Raises:
            DaliError: DALI failed on one of them.
        """
        while self.under_way:
            with self.outputs():
                pass


def copied_on_gpu(decoded: Any, device: torch.device) -> torch.Tensor:
    """Copy a batch out of DALI's memory in torch's current stream; the host does not wait.

    Args:
        decoded: What :meth:`DaliPipeline.outputs` lends: images of one size on the GPU.
        device: The GPU.

    Returns:
        uint8 (N, H, W, 3), which lives in torch's memory.
    """
    from nvidia.dali.plugin.pytorch import feed_ndarray

    with torch.cuda.device(device):
        images = decoded.as_tensor()
        copy = torch.empty(images.shape(), dtype=torch.uint8, device=device)
        # DALI makes the stream that owns its memory wait for this copy, and frees and overwrites
        # the memory in that stream, after the copy. No DLPack: its deleter waits for the device.
        feed_ndarray(images, copy, cuda_stream=torch.cuda.current_stream())
    return copy


def _blank_jpeg(size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    file = BytesIO()
    Image.new("RGB", (size, size)).save(file, format="JPEG", subsampling="4:2:0")
    return np.frombuffer(file.getvalue(), np.uint8)


def _build_pipeline(
    steps: Steps, max_batch_size: int, threads: int, device: torch.device
) -> Pipeline:
    pipeline = Pipeline(
        batch_size=max_batch_size,
        num_threads=threads,
        device_id=(device.index or 0) if device.type == "cuda" else None,
        prefetch_queue_depth=BATCHES_AHEAD,
    )
    with pipeline:
        pipeline.set_outputs(images_of(steps))
    pipeline.build()
    return pipeline
