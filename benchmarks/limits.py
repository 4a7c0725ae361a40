"""Decoding alone: an upper bound on the speed of a loader that decodes whole images."""

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

from benchmarks.contenders import Epoch, UnavailableError, Workload

_BATCHES_AHEAD = 2
_IMAGES_AT_ONCE = (
    16  # per task of a thread: few tasks, and all threads finish at about the same time
)

T = TypeVar("T")


def pillow(workload: Workload, stack: ExitStack) -> Epoch:
    """Pillow on threads."""
    return _on_threads(
        lambda encoded: Image.open(io.BytesIO(encoded.data)).load(),
        [workload.store.read(number) for number in workload.sample_ids.tolist()],
        workload,
        stack,
    )


def torchvision(workload: Workload, stack: ExitStack) -> Epoch:
    """The decoder of torchvision.io on threads."""
    return _on_threads(
        lambda encoded: decode_image(encoded, ImageReadMode.RGB),
        _tensors(workload),
        workload,
        stack,
    )


def turbojpeg(workload: Workload, stack: ExitStack) -> Epoch:
    """PyTurboJPEG on threads, if it and its library are installed."""
    try:
        from turbojpeg import TJPF_RGB, TurboJPEG
    except ImportError as error:
        raise UnavailableError("not installed") from error
    try:
        decoder = TurboJPEG()
    except (RuntimeError, OSError) as error:
        raise UnavailableError(f"libjpeg-turbo not found: {error}") from error
    encoded = [workload.store.read(n).tobytes() for n in workload.sample_ids.tolist()]
    return _on_threads(
        lambda data: decoder.decode(data, pixel_format=TJPF_RGB), encoded, workload, stack
    )


def torchvision_on_gpu(workload: Workload, stack: ExitStack) -> Epoch:
    """The decoder of torchvision.io on the GPU (nvJPEG), a batch at a time."""
    encoded = _tensors(workload)

    def epoch() -> Iterable[torch.Tensor]:
        for batch in _parts(encoded, workload.batch_size):
            decode_jpeg(batch, ImageReadMode.RGB, device=workload.device)
        return ()

    return epoch


def dali(workload: Workload, stack: ExitStack) -> Epoch:
    """DALI, a batch at a time: on its threads, or nvJPEG on the GPU."""
    try:
        from nvidia.dali import Pipeline, fn, types
    except ImportError as error:
        raise UnavailableError("not installed") from error
    encoded = [workload.store.read(number) for number in workload.sample_ids.tolist()]
    batches = list(_parts(encoded, workload.batch_size))
    on_gpu = workload.device.type == "cuda"
    pipeline = Pipeline(
        batch_size=workload.batch_size,
        num_threads=workload.workers,
        device_id=(workload.device.index or 0) if on_gpu else None,
        prefetch_queue_depth=_BATCHES_AHEAD,
    )
    with pipeline:
        images = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
        options = {"device": "mixed" if on_gpu else "cpu", "output_type": types.RGB}
        pipeline.set_outputs(fn.decoders.image(images, adjust_orientation=False, **options))
    pipeline.build()
    # batches are fed one by one: a pipeline that reads by itself would keep decoding while others
    # are timed; the first run only fills the prefetch queue
    for _ in range(_BATCHES_AHEAD):
        pipeline.feed_input("encoded", batches[0])
    pipeline.schedule_run()

    def collect() -> None:
        pipeline.share_outputs()
        pipeline.release_outputs()

    for _ in range(_BATCHES_AHEAD):
        collect()

    def epoch() -> Iterable[torch.Tensor]:
        for number, batch in enumerate(batches):
            pipeline.feed_input("encoded", batch)
            pipeline.schedule_run()
            if number >= _BATCHES_AHEAD - 1:
                collect()
        for _ in range(min(len(batches), _BATCHES_AHEAD - 1)):
            collect()
        return ()

    return epoch


def _on_threads(
    decode: Callable[[T], object], encoded: list[T], workload: Workload, stack: ExitStack
) -> Epoch:
    pool = stack.enter_context(ThreadPoolExecutor(workload.workers))
    parts = list(_parts(encoded, _IMAGES_AT_ONCE))

    def decode_all(part: list[T]) -> None:
        for data in part:
            decode(data)

    def epoch() -> Iterable[torch.Tensor]:
        for _ in pool.map(decode_all, parts):
            pass
        return ()

    return epoch


def _tensors(workload: Workload) -> list[torch.Tensor]:
    return [torch.tensor(workload.store.read(n)) for n in workload.sample_ids.tolist()]


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
