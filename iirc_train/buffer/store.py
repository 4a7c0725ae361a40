"""Where memories are kept: a Zarr v3 hierarchy, in memory or on disk.

Layout of version 3, readable with plain ``zarr``::

    classes/000000        array uint8 (bytes,), the encoded images one after another;
                          attributes: class_name; label_names; offsets, memories + 1 of them, where
                          each image starts and ends; labels, for each memory two indices into
                          label_names, -1 for none; sizes, for each memory height and width in
                          pixels; sha256 of all this
    generations/000001    group; attributes: counts (class name to number of memories that count),
                          sha256 of these

A class's array never changes once written; a generation says how many memories of each class
count, most important first. So a reader of a generation is never disturbed by a writer, and
shrinking a class writes a few bytes. A commit writes two files for each new class and one for the
generation, and syncs these alone.

In version 2 each class is a group of four arrays: data, offsets, labels and sizes. Such classes are
read where they are; a buffer of version 2 becomes one of version 3 when a class is added to it.
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
from iirc_data.files import canonical_json, sync_folder, sync_path, sync_tree

FORMAT = "iirc-replay-buffer"
VERSION = 3

_READABLE_VERSIONS = (2, VERSION)
_CLASSES = "classes"
_GENERATIONS = "generations"
_METADATA = "zarr.json"
_ONE_CHUNK: dict[str, Any] = {
    "name": "v2",
    "separator": ".",
}  # the chunk's file lies beside the array's metadata
_ARRAYS = {
    "data": ("uint8", (-1,)),
    "offsets": ("int64", (-1,)),
    "labels": ("int32", (-1, 2)),
    "sizes": ("int32", (-1, 2)),
}
"""What a class holds: dtype and shape of each."""
_TABLES = ("offsets", "labels", "sizes")


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
        self._in_memory: dict[str, Any] = {}
        storage = (
            MemoryStore(self._in_memory) if path is None else LocalStore(path, read_only=read_only)
        )
        with _told(f"{path} is not a readable replay buffer"):
            self._root = zarr.open_group(storage, mode="r" if read_only else "a", zarr_format=3)
            attributes = dict(self._root.attrs)
            is_new = "format" not in attributes and not read_only and not any(self._root.keys())
        if is_new:
            # in one go: attrs.update would write one after the other
            self._root.update_attributes({"format": FORMAT, "version": VERSION})
        elif "format" not in attributes:
            raise BufferStorageError(f"{path} is a Zarr group, but no replay buffer")
        elif attributes["format"] != FORMAT or attributes.get("version") not in _READABLE_VERSIONS:
            raise BufferStorageError(
                f"{path} is {attributes['format']!r} version {attributes.get('version')!r}, "
                f"expected {FORMAT!r} version {' or '.join(map(str, _READABLE_VERSIONS))}"
            )
        # what this object knows about the folder, which nobody else writes to
        self._is_old = not is_new and attributes["version"] != VERSION
        self._synced_folders: set[Path] = set()
        self._unsynced: list[Path] = []
        self._latest: int | None = None

    def write_class(self, class_name: str, memories: Sequence[Memory], number: int) -> None:
        """Write a class's memories, most important first.

        Args:
            class_name: The class.
            memories: Its memories; their order is kept.
            number: Number of the class; one of this number that no generation names is replaced.

        Raises:
            BufferStorageError: The hierarchy is damaged, or the disk takes no more.
        """
        label_names = sorted({name for m in memories for name in m.labels} - {NO_LABEL_PLACEHOLDER})
        codes = {name: index for index, name in enumerate(label_names)}
        values = _typed(
            {
                "data": np.frombuffer(b"".join(memory.data for memory in memories), np.uint8),
                "offsets": np.cumsum([0, *(len(memory.data) for memory in memories)]),
                "labels": [[codes.get(n, NO_LABEL) for n in memory.labels] for memory in memories],
                "sizes": [[memory.height, memory.width] for memory in memories],
            }
        )
        name = f"{_CLASSES}/{number:06d}"
        attributes = {
            "class_name": class_name,
            "label_names": label_names,
            **{table: values[table].tolist() for table in _TABLES},
            "sha256": _digest(class_name, label_names, values),
        }
        with _told(f"cannot write {self.path}/{name}"):
            if self._is_old:
                self._root.update_attributes({"version": VERSION})
                self._is_old = False
                self._synced_folders.clear()
            self._root.create_array(
                name,
                data=values["data"],
                # images are compressed already: one chunk with a checksum is read in one go
                chunks=(max(len(values["data"]), 1),),
                chunk_key_encoding=_ONE_CHUNK,
                compressors=Crc32cCodec(),
                attributes=attributes,
                config={"write_empty_chunks": True},  # so that a chunk that is lost is noticed
                overwrite=True,
            )
        if self.path is not None:
            self._unsynced.append(self.path / name)

    def read_class(self, number: int, class_name: str) -> ClassMemories:
        """Read a class's memories in one go.

        Args:
            number: Number of the class.
            class_name: The class that it must be.

        Raises:
            BufferStorageError: The class is missing or damaged, or another one.
        """
        name = f"{_CLASSES}/{number:06d}"
        with _told(f"cannot read {self.path}/{name}"):
            node: Any = self._root[name]
            attributes = node.attrs.asdict()
            label_names = [str(label) for label in attributes["label_names"]]
            if isinstance(node, zarr.Array):
                tables = {table: attributes[table] for table in _TABLES}
                values = _typed({"data": _read_array(node, "data"), **tables})
            else:
                values = {key: _read_array(node[key], key) for key in _ARRAYS}
            sha256 = attributes["sha256"]
        if sha256 != _digest(class_name, label_names, values):
            raise BufferStorageError(
                f"{self.path}/{name} is damaged, or does not hold the memories of {class_name!r}"
            )
        return ClassMemories(label_names, **values)

    def commit(self, counts: Mapping[str, int]) -> int:
        """Write a generation; on disk, everything outlives a power cut once this returns.

        What it costs depends on what was written since the last commit, not on what is there.

        Args:
            counts: For each class, in the order of their numbers, how many memories count.

        Returns:
            The generation's number.

        Raises:
            BufferStorageError: The hierarchy is damaged, or the disk takes no more.
        """
        latest = max(self.generations(), default=0) if self._latest is None else self._latest
        generation = latest + 1
        name = f"{_GENERATIONS}/{generation:06d}"
        attributes = {"counts": dict(counts), "sha256": _digest_of_counts(counts)}
        self._latest = None  # what is there if this fails, the folder knows
        with _told(f"cannot write {self.path}/{name}"):
            self._sync(self._unsynced)  # before anything names them
            self._unsynced.clear()
            self._root.create_group(name, attributes=attributes)
            if self.path is not None:
                self._sync([self.path / name])
        self._latest = generation
        return generation

    def counts(self, generation: int) -> dict[str, int]:
        """Return how many memories of each class a generation counts, in the order of classes.

        Raises:
            BufferStorageError: There is no such generation, or the hierarchy is damaged.
        """
        name = f"{_GENERATIONS}/{generation:06d}"
        with _told(f"cannot read {self.path}/{name}"):
            node = self._root.get(name)
        if node is None:
            raise BufferStorageError(
                f"replay buffer {self.path} has no generation {generation}, "
                f"only {sorted(self.generations())}"
            )
        with _told(f"cannot read {self.path}/{name}"):
            attributes: Any = node.attrs.asdict()
            counts = {str(name): int(count) for name, count in attributes["counts"].items()}
        if attributes.get("sha256") not in (None, _digest_of_counts(counts)):
            raise BufferStorageError(f"{self.path}/{name} is damaged: it does not fit its digest")
        return counts

    def generations(self) -> set[int]:
        """Return the numbers of the generations that exist.

        Raises:
            BufferStorageError: The hierarchy is damaged.
        """
        return {int(name) for name in self._names(_GENERATIONS) if name.isdecimal()}

    def collect(self, generation: int) -> None:
        """Remove every other generation, the classes that this one does not name, debris.

        Args:
            generation: Number of the generation to keep; 0 for none.
        """
        n_classes = len(self.counts(generation)) if generation else 0
        kept = {
            _GENERATIONS: {f"{generation:06d}"} if generation else set(),
            _CLASSES: {f"{number:06d}" for number in range(n_classes)},
        }
        self._latest = generation
        self._unsynced.clear()
        for folder, names in kept.items():
            if self.path is None:
                # by the keys: zarr would parse the metadata of every class
                found = {key.split("/")[1] for key in self._in_memory if key.startswith(folder)}
                for name in found - names - {_METADATA}:
                    del self._root[f"{folder}/{name}"]
            else:  # what a killed process left is no node yet: only the file system knows it
                for path in (self.path / folder).glob("*/"):
                    if path.name not in names:
                        shutil.rmtree(path)
        if self.path is not None:  # whatever a generation names was written to its end
            for place in (".", *kept):
                for path in (self.path / place).glob("*.partial"):
                    path.unlink()

    def _sync(self, nodes: Sequence[Path]) -> None:
        """Wait until new nodes of one folder are on the disk, first they, then their names."""
        for node in nodes:
            sync_tree(node)
        for folder in {node.parent for node in nodes}:
            sync_folder(folder)
            if folder not in self._synced_folders:
                root = folder.parent
                for metadata in (folder / _METADATA, root / _METADATA):
                    sync_path(metadata)
                sync_folder(root)
                sync_folder(root.parent)
                self._synced_folders.add(folder)

    def _names(self, name: str) -> set[str]:
        with (
            _told(f"cannot read {self.path}/{name}"),
            warnings.catch_warnings(category=ZarrUserWarning, action="ignore"),
        ):
            group = self._root.get(name)
            return set(group.keys()) if isinstance(group, zarr.Group) else set()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what failed: zarr raises many types of errors on a damaged hierarchy."""
    try:
        yield
    except Exception as error:
        raise BufferStorageError(f"{what}: {error}") from error


def _typed(values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {
        name: np.asarray(values[name]).astype(dtype, copy=False).reshape(shape)
        for name, (dtype, shape) in _ARRAYS.items()
    }


def _digest(class_name: str, label_names: list[str], arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(canonical_json([class_name, label_names]))
    for name in _ARRAYS:
        digest.update(canonical_json(arrays[name].shape))
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _digest_of_counts(counts: Mapping[str, int]) -> str:
    return hashlib.sha256(canonical_json(list(counts.items()))).hexdigest()


def _read_array(array: Any, name: str) -> NDArray[Any]:
    """Read an array, where it is of the kind that is written and its bytes are there.

    Raises:
        ValueError: It is not.
    """
    dtype, shape = _ARRAYS[name]
    fits = len(array.shape) == len(shape) and all(
        n in (-1, found) for n, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        raise ValueError(f"{array.name} is {array.dtype} {array.shape}, expected {dtype} {shape}")
    if array.chunks != tuple(max(n, 1) for n in array.shape):
        raise ValueError(f"{array.name} is in chunks of {array.chunks}, expected one chunk")
    if array.nbytes_stored() < array.nbytes:  # zarr would make up what is missing
        raise ValueError(f"{array.name} lacks a part of its {array.nbytes} bytes")
    return np.asarray(array[:])
