"""What a raw dataset must offer to be sharded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")


@dataclass(frozen=True)
class Sample:
    """One raw image.

    Attributes:
        key: Name of the image within its class and split, without extension.
        extension: ``"jpg"``, ``"jpeg"`` or ``"png"``.
        data: The encoded image, byte for byte as the dataset has it.
        origin: Where it came from, for errors.
    """

    key: str
    extension: str
    data: bytes
    origin: str


class Source(Protocol):
    """A raw dataset; picklable, so that classes can be read by several processes."""

    @property
    def name(self) -> str:
        """Name of the dataset."""

    def classes(self) -> dict[str, list[str]]:
        """Return for each split the sorted names of its leaf classes."""

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield one class's samples in the dataset's own order."""
