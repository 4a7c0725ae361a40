"""The interface of a decoder: encoded images and augmentation parameters in, pixels out."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iirc_data.augment import Augmentation
from iirc_data.decoding import decode
from iirc_data.errors import LoaderError, SourceError
from iirc_data.loader.normalization import Normalization
from iirc_data.shards.sample_store import SampleStore
from iirc_data.sources.images import Look, look_at


@dataclass(frozen=True)
class DecodeRequest:
    """One batch of work for a decoder.

    Attributes:
        encoded: For each image its bytes, uint8 (bytes,): JPEG or PNG.
        augmentation: Augmentation parameters. The loader applies their ``operations`` itself.
        names: Returns the name of an image for error messages, given its number in the batch.
        odd: Numbers of the images that decoders may decode differently: every decoder uses Pillow
            for them.
        irregular: Numbers of the odd images that violate their format. DALI may refuse them, so its
            decoder warns about them.
        most_pixels: Number of pixels of the largest image of the epoch; None if it is unknown.
        normalization: Normalisation of the pixels; None for uint8.
    """

    encoded: list[NDArray[np.uint8]]
    augmentation: Augmentation
    names: Callable[[int], str]
    odd: frozenset[int] = frozenset()
    irregular: frozenset[int] = frozenset()
    most_pixels: int | None = None
    normalization: Normalization | None = None


class Requests:
    """An iterator of requests that says whether the next one would have to be waited for.

    A decoder that would wait hands out the batches that it has.

    Args:
        requests: The requests.
        is_ready: Returns whether the next one is made without waiting for data.
    """

    def __init__(
        self, requests: Iterable[DecodeRequest], is_ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._requests = iter(requests)
        self.is_ready = is_ready

    @classmethod
    def of(cls, requests: Iterable[DecodeRequest]) -> "Requests":
        """Return requests as an iterator of this class."""
        return requests if isinstance(requests, cls) else cls(requests)

    def map(self, function: Callable[[DecodeRequest], DecodeRequest]) -> "Requests":
        """Return an iterator of changed requests."""
        return Requests(map(function, self._requests), self.is_ready)

    def __iter__(self) -> "Requests":
        return self

    def __next__(self) -> DecodeRequest:
        return next(self._requests)


class Decoder(Protocol):
    """Decodes and augments images, a few batches ahead of the caller."""

    @property
    def name(self) -> str:
        """``"dali"`` or ``"pillow"``; a run records it."""

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """Yield the images of each request, uint8 or normalised float32 (N, H, W, 3).

        Raises:
            LoaderError: An image cannot be decoded, or the images of a batch differ in size.
        """

    def resolved(self, has_windows: bool) -> dict[str, Any]:
        """Return what its settings came to on this machine; a run records it.

        Args:
            has_windows: Whether windows of images will be decoded.
        """

    def close(self) -> None:
        """Release threads and memory."""


def with_number(device: torch.device) -> torch.device:
    """Return a device with its number: ``cuda`` is torch's current GPU, here and from now on."""
    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    return torch.device("cuda", torch.cuda.current_device())


def default_threads() -> int:
    """Return this process's share of the processors: those it may use, divided by the processes.

    ``torchrun`` sets ``LOCAL_WORLD_SIZE``, the number of processes on this machine.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, processors // max(1, int(processes))) if processes.isdecimal() else processors


def read_plain(store: SampleStore, sample_id: int) -> NDArray[np.uint8]:
    """Read an encoded image in a form that every decoder decodes to the same RGB pixels.

    An image that decoders may decode differently is returned as an RGB PNG of Pillow's pixels.

    Args:
        store: The shards.
        sample_id: Row of the sample table.

    Returns:
        uint8 (bytes,).

    Raises:
        LoaderError: The image is damaged, or its size differs from the sample table's.
    """
    encoded = store.read(sample_id)
    if store.looks[sample_id] == 1:
        return encoded
    height, width = store.sizes(np.array([sample_id]))[0].tolist()
    if checked_look(encoded, (height, width), lambda: store.name(sample_id)).is_plain:
        return encoded
    return encode_rgb_png(decode(encoded, lambda: store.name(sample_id)))


def checked_look(
    encoded: NDArray[np.uint8], expected: tuple[int, int], name: Callable[[], str]
) -> Look:
    """Inspect an image and check its size before a decoder allocates memory for it.

    Decoders differ in how they convert rare pixel formats (CMYK, palette, 16 bit, …) and in the
    damage that they detect. The result says whether they decode this image alike.

    Args:
        encoded: uint8 (bytes,), JPEG or PNG.
        expected: Height and width.
        name: Returns the image's name for error messages.

    Raises:
        LoaderError: The data is not an image, or the image has another size.
    """
    try:
        found = look_at(encoded, "it")
    except SourceError as error:
        raise LoaderError(f"cannot decode {name()}: {error}; make the shards again") from error
    if (found.height, found.width) != expected:
        raise LoaderError(
            f"{name()} is an image of {found.height} x {found.width} pixels, the table records "
            f"{expected[0]} x {expected[1]}; the shard may be corrupt: run iirc data verify"
        )
    return found


def encode_rgb_png(image: Image.Image) -> NDArray[np.uint8]:
    """Encode an image's pixels, without metadata, as an RGB PNG, uint8 (bytes,)."""
    pixels = image.convert("RGB")
    pixels.info.clear()  # colour profiles, and a transparent colour that RGB cannot hold
    file = io.BytesIO()
    pixels.save(file, format="PNG", compress_level=1)
    return np.frombuffer(file.getvalue(), np.uint8)


def sizes_differ(requested: DecodeRequest, sizes: set[tuple[int, int]]) -> LoaderError:
    """Return the error for a batch of images that cannot be stacked."""
    return LoaderError(
        f"the images of a batch differ in size ({sorted(sizes)[:3]} pixels, first image "
        f"{requested.names(0)}): use an image preset that crops or resizes to one size"
    )
