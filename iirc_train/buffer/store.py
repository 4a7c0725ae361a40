"""Where memories are kept: a Zarr v3 hierarchy, in memory or on disk.

Layout, readable with plain ``zarr``::

    classes/000000        attributes: class_name, label_names, sha256 of these and the arrays
        data              uint8 (bytes,), the encoded images one after another
        offsets           int64 (memories + 1,), where each image starts and ends
        labels            int32 (memories, 2), indices into label_names, -1 for none
        sizes             int32 (memories, 2), height and width in pixels
    generations/000001    attributes: counts (class name to number of memories that count)

A class's group never changes once written; a generation says how many memories of each class
count, most important first. So a reader of a generation is never disturbed by a writer, and
shrinking a class writes a few bytes.
"""

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore, MemoryStore

from iirc_data.definitions import NO_LABEL, NO_LABEL_PLACEHOLDER
from iirc_data.errors import BufferStorageError
from iirc_data.files import canonical_json, sync_tree

FORMAT = "iirc-replay-buffer"
VERSION = 2

_ARRAYS = {
    "data": ("uint8", (-1,)),
    "offsets": ("int64", (-1,)),
    "labels": ("int32", (-1, 2)),
    "sizes": ("int32", (-1, 2)),
}
"""Each array's dtype and shape."""


@dataclass(frozen=True)
class Memory:
    """One image to remember.

    Attributes:
        data: The encoded image (RGB or grayscale, JPEG or PNG).
        labels: The labels that were visible when it was chosen, ``NO_LABEL_PLACEHOLDER`` for none.
        height: Pixels.
        width: Pixels.
    """

    data: bytes
    labels: tuple[str, str]
    height: int
    width: int


@dataclass(frozen=True)
class ClassMemories:
    """The memories of one class, most important first.

    Attributes:
        label_names: Names that occur as labels.
        data: uint8 (bytes,), encoded images one after another.
        offsets: int64 (memories + 1,).
        labels: int32 (memories, 2), indices into ``label_names``, -1 for none.
        sizes: int32 (memories, 2), height and width in pixels.
    """

    label_names: list[str]
    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int32]

    def encoded(self, number: int) -> NDArray[np.uint8]:
        """Return one encoded image, uint8 (bytes,)."""
        return self.data[self.offsets[number] : self.offsets[number + 1]]

    def label_pair(self, number: int) -> tuple[str, str]:
        """Return one memory's labels, ``NO_LABEL_PLACEHOLDER`` for none."""
        names = [*self.label_names, NO_LABEL_PLACEHOLDER]  # -1 is the last
        first, second = self.labels[number].tolist()
        return names[first], names[second]


class BufferStore:
    """Class groups and generations of a replay buffer.

    Args:
        path: Folder of the Zarr hierarchy, made if missing; None keeps it in memory.
        read_only: Never write, for what looks at a buffer that another process may use.

    Raises:
        BufferStorageError: The folder holds something else, or a newer version.
    """

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path = path
        storage = MemoryStore() if path is None else LocalStore(path, read_only=read_only)
        with _told(f"{path} is not a readable replay buffer"):
            self._root = zarr.open_group(storage, mode="r" if read_only else "a", zarr_format=3)
            attributes = dict(self._root.attrs)
            is_new = "format" not in attributes and not read_only and not any(self._root.keys())
        if is_new:
            # in one go: attrs.update would write one after the other
            self._root.update_attributes({"format": FORMAT, "version": VERSION})
        elif "format" not in attributes:
            raise BufferStorageError(f"{path} is a Zarr group, but no replay buffer")
        elif attributes["format"] != FORMAT or attributes.get("version") != VERSION:
            raise BufferStorageError(
                f"{path} is {attributes['format']!r} version {attributes.get('version')!r}, "
                f"expected {FORMAT!r} version {VERSION}"
            )

    def write_class(self, class_name: str, memories: Sequence[Memory], number: int) -> None:
        """Write a class's memories, most important first.

        Args:
            class_name: The class.
            memories: Its memories; their order is kept.
            number: Number of the group; a group of this number that no generation names is
                replaced.

        Raises:
            BufferStorageError: The hierarchy is damaged, or the disk takes no more.
        """
        label_names = sorted({name for m in memories for name in m.labels} - {NO_LABEL_PLACEHOLDER})
        codes = {name: index for index, name in enumerate(label_names)}
        labels = [[codes.get(name, NO_LABEL) for name in memory.labels] for memory in memories]
        sizes = [[memory.height, memory.width] for memory in memories]
        values = {
            "data": np.frombuffer(b"".join(memory.data for memory in memories), np.uint8),
            "offsets": np.cumsum([0, *(len(memory.data) for memory in memories)]),
            "labels": np.array(labels),
            "sizes": np.array(sizes),
        }
        arrays = {
            name: values[name].astype(dtype).reshape(shape)
            for name, (dtype, shape) in _ARRAYS.items()
        }
        name = f"classes/{number:06d}"
        attributes = {
            "class_name": class_name,
            "label_names": label_names,
            "sha256": _digest(class_name, label_names, arrays),
        }
        with _told(f"cannot write {self.path}/{name}"):
            group = self._root.create_group(name, overwrite=True, attributes=attributes)
            for key, array in arrays.items():
                # images are compressed already: one chunk with a checksum is read in one go
                group.create_array(
                    key,
                    data=array,
                    chunks=tuple(max(n, 1) for n in array.shape),
                    compressors=Crc32cCodec(),
                    config={"write_empty_chunks": True},  # so that a chunk that is lost is noticed
                )

    def read_class(self, number: int, class_name: str) -> ClassMemories:
        """Read a class's memories in one go.

        Args:
            number: Number of the group.
            class_name: The class that it must hold.

        Raises:
            BufferStorageError: The group is missing or damaged, or of another class.
        """
        name = f"classes/{number:06d}"
        with _told(f"cannot read {self.path}/{name}"):
            group: Any = self._root[name]
            label_names = [str(label) for label in group.attrs["label_names"]]
            arrays = {key: _read_array(group[key], *_ARRAYS[key]) for key in _ARRAYS}
            sha256 = group.attrs["sha256"]
        if sha256 != _digest(class_name, label_names, arrays):
            raise BufferStorageError(
                f"{self.path}/{name} is damaged, or does not hold the memories of {class_name!r}"
            )
        return ClassMemories(label_names, **arrays)

    def commit(self, counts: Mapping[str, int]) -> int:
        """Write a generation; on disk, everything outlives a power cut once this returns.

        Args:
            counts: For each class, in the order of the class groups, how many memories count.

        Returns:
            The generation's number.

        Raises:
            BufferStorageError: The hierarchy is damaged.
        """
        generation = max(self.generations(), default=0) + 1
        name = f"generations/{generation:06d}"
        with _told(f"cannot write {self.path}/{name}"):
            self._root.create_group(name, attributes={"counts": dict(counts)})
        if self.path is not None:
            sync_tree(self.path)
        return generation

    def counts(self, generation: int) -> dict[str, int]:
        """Return how many memories of each class a generation counts, in group order.

        Raises:
            BufferStorageError: There is no such generation, or the hierarchy is damaged.
        """
        existing = self.generations()
        if generation not in existing:
            raise BufferStorageError(
                f"replay buffer {self.path} has no generation {generation}, only {sorted(existing)}"
            )
        name = f"generations/{generation:06d}"
        with _told(f"cannot read {self.path}/{name}"):
            counts: Any = self._root[name].attrs["counts"]
            return {str(name): int(count) for name, count in counts.items()}

    def generations(self) -> set[int]:
        """Return the numbers of the generations that exist.

        Raises:
            BufferStorageError: The hierarchy is damaged.
        """
        return {int(name) for name in self._group_names("generations") if name.isdecimal()}

    def collect(self, generation: int) -> None:
        """Remove every other generation, the class groups that this one does not name, debris.

        Args:
            generation: Number of the generation to keep; 0 for none.
        """
        n_classes = len(self.counts(generation)) if generation else 0
        kept = {
            "generations": {f"{generation:06d}"} if generation else set(),
            "classes": {f"{number:06d}" for number in range(n_classes)},
        }
        for folder, names in kept.items():
            if self.path is None:
                for name in set(self._group_names(folder)) - names:
                    del self._root[f"{folder}/{name}"]
            else:  # what a killed process left is no group yet: only the file system knows it
                for path in (self.path / folder).glob("*/"):
                    if path.name not in names:
                        shutil.rmtree(path)
        if self.path is not None:
            for path in self.path.rglob("*.partial"):
                path.unlink()

    def _group_names(self, name: str) -> list[str]:
        with (
            _told(f"cannot read {self.path}/{name}"),
            warnings.catch_warnings(category=ZarrUserWarning, action="ignore"),
        ):
            group = self._root.get(name)
            return list(group.group_keys()) if isinstance(group, zarr.Group) else []


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what failed: zarr raises many types of errors on a damaged hierarchy."""
    try:
        yield
    except Exception as error:
        raise BufferStorageError(f"{what}: {error}") from error


def _digest(class_name: str, label_names: list[str], arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(canonical_json([class_name, label_names]))
    for name in _ARRAYS:
        digest.update(canonical_json(arrays[name].shape))
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _read_array(array: Any, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read an array, where it is of the kind that is written and its bytes are there.

    Raises:
        ValueError: It is not.
    """
    fits = len(array.shape) == len(shape) and all(
        n in (-1, found) for n, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        raise ValueError(f"{array.name} is {array.dtype} {array.shape}, expected {dtype} {shape}")
    if array.nbytes_stored() < array.nbytes:  # zarr would make up what is missing
        raise ValueError(f"{array.name} lacks a part of its {array.nbytes} bytes")
    return np.asarray(array[:])
