"""What a decoder does: turn encoded images and augmentation parameters into pixels."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iirc_data.augment import Augmentation
from iirc_data.decoding import decode
from iirc_data.errors import LoaderError, SourceError
from iirc_data.shards.store import ShardStore
from iirc_data.sources.images import Look, look_at


@dataclass(frozen=True)
class DecodeRequest:
    """One batch of work for a decoder.

    Attributes:
        encoded: For each image its bytes, uint8 (bytes,): JPEG or PNG.
        augmentation: What to do to the images.
        names: What to call the images in an error.
        odd: Numbers of the images that decoders may show differently: every decoder decodes them
            with Pillow.
        irregular: Those of them that are not put together as their format asks for: DALI, which may
            refuse them, warns of them.
    """

    encoded: list[NDArray[np.uint8]]
    augmentation: Augmentation
    names: Callable[[int], str]
    odd: frozenset[int] = frozenset()
    irregular: frozenset[int] = frozenset()


class Decoder(Protocol):
    """Decodes and augments; keeps what it can ready ahead of the caller."""

    @property
    def name(self) -> str:
        """``"dali"`` or ``"pillow"``; a run records it."""

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """Yield for each request its images, uint8 (N, H, W, 3).

        Raises:
            LoaderError: An image cannot be decoded, or the images of a batch differ in size.
        """

    def close(self) -> None:
        """Release threads and memory."""


def default_threads() -> int:
    """Return the processors that this process may use, divided among this machine's processes.

    ``torchrun`` gives the number of processes in ``LOCAL_WORLD_SIZE``.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, processors // max(1, int(processes))) if processes.isdecimal() else processors


def read_plain(store: ShardStore, sample_id: int) -> NDArray[np.uint8]:
    """Read an encoded image that every decoder turns into the same RGB pixels.

    An image that decoders may show differently is returned as an RGB PNG of Pillow's pixels.

    Args:
        store: The shards.
        sample_id: Row of the sample table.

    Returns:
        uint8 (bytes,).

    Raises:
        LoaderError: The image is damaged, or its size is not the one in the sample table.
    """
    encoded = store.read(sample_id)
    size = int(store.table.height[sample_id]), int(store.table.width[sample_id])
    if checked_look(encoded, size, lambda: store.name(sample_id)).is_plain:
        return encoded
    return encode_rgb_png(decode(encoded, lambda: store.name(sample_id)))


def checked_look(
    encoded: NDArray[np.uint8], expected: tuple[int, int], name: Callable[[], str]
) -> Look:
    """Look at an image and check its size, before a decoder reserves memory for it.

    Decoders differ in how they convert rare pixel formats (CMYK, palette, 16 bit, …), and in the
    damage that they notice: the look tells whether they would show this image alike.

    Args:
        encoded: uint8 (bytes,), JPEG or PNG.
        expected: Height and width.
        name: Gives what to call the image in an error.

    Raises:
        LoaderError: The image is of another size, or none.
    """
    try:
        found = look_at(encoded, "it")
    except SourceError as error:
        raise LoaderError(f"cannot decode {name()}: {error}; make the shards anew") from error
    if (found.height, found.width) != expected:
        raise LoaderError(
            f"{name()} is an image of {found.height} x {found.width} pixels, the dataset tells "
            f"{expected[0]} x {expected[1]}: do not trust it"
        )
    return found


def encode_rgb_png(image: Image.Image) -> NDArray[np.uint8]:
    """Encode an image's pixels, and nothing else, as an RGB PNG, uint8 (bytes,)."""
    pixels = image.convert("RGB")
    pixels.info.clear()  # colour profiles and the like, and a transparent colour of another format
    file = io.BytesIO()
    pixels.save(file, format="PNG", compress_level=1)
    return np.frombuffer(file.getvalue(), np.uint8)


def sizes_differ(requested: DecodeRequest, sizes: set[tuple[int, int]]) -> LoaderError:
    """Return the error for a batch of images that cannot be stacked."""
    return LoaderError(
        f"images of one batch differ in size ({sorted(sizes)[:3]} pixels, first image "
        f"{requested.names(0)}): choose a transform that crops or resizes to one size"
    )
