"""Storage of memories: a Zarr v3 hierarchy, in memory or on disk.

Layout of version 3, which plain ``zarr`` can read::

    classes/000000        array uint8 (bytes,), the concatenated encoded images;
                          attributes: class_name; label_names; offsets (memories + 1), where each
                          image starts and ends; labels, L indices into label_names for each
                          memory, -1 for none; sizes, height and width of each memory in pixels;
                          datasets, only in a run of several: the number of each memory's dataset;
                          sha256 of all of these
    generations/000001    group; attributes: counts (class name to number of memories in use),
                          sha256 of the counts

A class's array never changes after it is written. A generation records how many memories of each
class are in use, counted from the most important one. A writer therefore never disturbs readers of
a generation, and shrinking a class writes only a few bytes. A commit writes two files per new class
and one for the generation, and syncs only these.

In version 2, each class is a group of four arrays: data, offsets, labels and sizes. Such classes
are read in place. Adding a class to a buffer of version 2 turns it into one of version 3.
"""

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore, MemoryStore

from iirc_data.errors import BufferStorageError
from iirc_data.files import canonical_json, sync_folder, sync_path, sync_tree
from iirc_train.buffer.class_arrays import (
    DATASETS,
    TABLES,
    Arrays,
    ClassMemories,
    Memory,
    digest_of_class,
    encoded_class,
    read_array,
    typed,
)

FORMAT = "iirc-replay-buffer"
VERSION = 3

_CLASSES = "classes"
_GENERATIONS = "generations"
_METADATA = "zarr.json"
_ONE_CHUNK: dict[str, Any] = {
    "name": "v2",
    "separator": ".",
}  # puts the file of the chunk next to the array's metadata


class BufferStore:
    """The stored classes and generations of a replay buffer.

    Attributes:
        version: Version of the layout that is written.
        readable_versions: Versions that can be read.

    Args:
        path: Folder of the Zarr hierarchy, created if missing; None keeps it in memory.
        read_only: Never write. Use this to look at a buffer that another process may be using.

    Raises:
        BufferStorageError: The folder contains something else, or a newer version.
    """

    version: ClassVar[int] = VERSION
    readable_versions: ClassVar[tuple[int, ...]] = (2, VERSION)

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path = path
        self._in_memory: dict[str, Any] = {}
        storage = (
            MemoryStore(self._in_memory) if path is None else LocalStore(path, read_only=read_only)
        )
        with failing_as(f"{path} is not a readable replay buffer"):
            self._root = zarr.open_group(storage, mode="r" if read_only else "a", zarr_format=3)
            attributes = dict(self._root.attrs)
            is_new = "format" not in attributes and not read_only and not any(self._root.keys())
        if is_new:
            # attrs.update would write the attributes one by one, not atomically
            self._root.update_attributes({"format": FORMAT, "version": self.version})
        elif "format" not in attributes:
            raise BufferStorageError(f"{path} is a Zarr group, but not a replay buffer")
        elif (
            attributes["format"] != FORMAT
            or attributes.get("version") not in self.readable_versions
        ):
            raise BufferStorageError(
                f"{path} is {attributes['format']!r} version {attributes.get('version')!r}, "
                f"expected {FORMAT!r} version {' or '.join(map(str, self.readable_versions))}"
            )
        # known state of the folder, which has no other writer
        self._is_old = not is_new and attributes["version"] != self.version
        self._synced_folders: set[Path] = set()
        self._unsynced: list[Path] = []
        self._latest: int | None = None

    def write_class(self, class_name: str, memories: Sequence[Memory], number: int) -> None:
        """Write the memories of a class, most important first.

        Args:
            class_name: The class.
            memories: Its memories, in order.
            number: Number of the class. An unreferenced class with this number is replaced.

        Raises:
            BufferStorageError: The hierarchy is damaged, or the disk is full.
        """
        label_names, values = encoded_class(memories)
        name = f"{_CLASSES}/{number:06d}"
        attributes = {
            "class_name": class_name,
            "label_names": label_names,
            **{table: values[table].tolist() for table in values if table != "data"},
            "sha256": digest_of_class(class_name, label_names, values),
        }
        with failing_as(f"cannot write {self.path}/{name}"):
            if self._is_old:
                self._root.update_attributes({"version": VERSION})
                self._is_old = False
                self._synced_folders.clear()
            self._root.create_array(
                name,
                data=values["data"],
                # images are already compressed; one chunk with a checksum needs a single read
                chunks=(max(len(values["data"]), 1),),
                chunk_key_encoding=_ONE_CHUNK,
                compressors=Crc32cCodec(),
                attributes=attributes,
                config={"write_empty_chunks": True},  # so that a lost chunk is noticed
                overwrite=True,
            )
        if self.path is not None:
            self._unsynced.append(self.path / name)

    def read_class(self, number: int, class_name: str) -> ClassMemories:
        """Read all memories of a class.

        Args:
            number: Number of the class.
            class_name: Name of the class, which must match the stored one.

        Raises:
            BufferStorageError: The class is missing, damaged, or a different one.
        """
        name = f"{_CLASSES}/{number:06d}"
        with failing_as(f"cannot read {self.path}/{name}"):
            node: Any = self._root[name]
            attributes = node.attrs.asdict()
            label_names = [str(label) for label in attributes["label_names"]]
            if isinstance(node, zarr.Array):
                tables = {table: attributes[table] for table in TABLES}
                if DATASETS in attributes:
                    tables[DATASETS] = attributes[DATASETS]
                values = typed({"data": read_array(node, "data"), **tables})
            else:
                values = {key: read_array(node[key], key) for key in ("data", *TABLES)}
            sha256 = attributes["sha256"]
        if sha256 != digest_of_class(class_name, label_names, values):
            raise BufferStorageError(
                f"{self.path}/{name} is damaged, or contains the memories of a class other than "
                f"{class_name!r}"
            )
        of_one: Arrays = {DATASETS: np.zeros(len(values["sizes"]), np.int64)}
        return ClassMemories(label_names, **(of_one | values))

    def copy_class(self, other: "BufferStore", number: int, class_name: str) -> ClassMemories:
        """Copy a class from another store; both are on disk. The number stays the same.

        Returns:
            The memories, read from the copy.

        Raises:
            BufferStorageError: The class is missing, damaged, or a different one.
        """
        assert self.path is not None and other.path is not None
        name = f"{_CLASSES}/{number:06d}"
        with failing_as(f"cannot copy {other.path}/{name}"):
            self._root.require_group(_CLASSES)
            shutil.copytree(other.path / name, self.path / name)
        self._unsynced.append(self.path / name)
        return self.read_class(number, class_name)

    def copy_memories(self, other: "BufferStore", state: Mapping[str, Any]) -> int:
        """Copy the memories that a run had at the end of a task; return their generation here.

        A run keeps every memory that it ever chose: it shrinks a class by counting fewer.

        Args:
            other: The store of the run.
            state: The state of its buffer, from a checkpoint.

        Raises:
            BufferStorageError: Memories are missing or damaged.
        """
        for number, (name, count) in enumerate(state["counts"].items()):
            if len(self.copy_class(other, number, name).labels) < count:
                raise BufferStorageError(
                    f"{other.path} has fewer than {count} memories of {name}: it does not belong "
                    "to the checkpoint"
                )
        return self.commit(state["counts"])

    def commit(self, counts: Mapping[str, int]) -> int:
        """Write a generation. When this returns, everything on disk survives a power failure.

        The cost depends on what was written since the last commit, not on the size of the buffer.

        Args:
            counts: Number of memories in use of each class, in the order of class numbers.

        Returns:
            The number of the generation.

        Raises:
            BufferStorageError: The hierarchy is damaged, or the disk is full.
        """
        return self._write_generation({"counts": dict(counts), "sha256": digest_of_counts(counts)})

    def _write_generation(self, attributes: dict[str, Any]) -> int:
        """Write a generation after everything that it refers to; return its number."""
        latest = max(self.generations(), default=0) if self._latest is None else self._latest
        generation = latest + 1
        name = f"{_GENERATIONS}/{generation:06d}"
        self._latest = None  # if this fails, look in the folder next time
        with failing_as(f"cannot write {self.path}/{name}"):
            self._sync(self._unsynced)  # before anything refers to them
            self._unsynced.clear()
            self._root.create_group(name, attributes=attributes)
            if self.path is not None:
                self._sync([self.path / name])
        self._latest = generation
        return generation

    def counts(self, generation: int) -> dict[str, int]:
        """Return a generation's number of memories of each class, in the order of class numbers.

        Raises:
            BufferStorageError: The generation does not exist, or the hierarchy is damaged.
        """
        name = f"{_GENERATIONS}/{generation:06d}"
        with failing_as(f"cannot read {self.path}/{name}"):
            node = self._root.get(name)
        if node is None:
            raise BufferStorageError(
                f"replay buffer {self.path} has no generation {generation}, "
                f"only {sorted(self.generations())}"
            )
        with failing_as(f"cannot read {self.path}/{name}"):
            attributes: Any = node.attrs.asdict()
            counts = {str(name): int(count) for name, count in attributes["counts"].items()}
        if attributes.get("sha256") not in (None, digest_of_counts(counts)):
            raise BufferStorageError(f"{self.path}/{name} is damaged: its digest does not match")
        return counts

    def generations(self) -> set[int]:
        """Return the numbers of the existing generations.

        Raises:
            BufferStorageError: The hierarchy is damaged.
        """
        return {int(name) for name in self._names(_GENERATIONS) if name.isdecimal()}

    def collect(self, generation: int) -> None:
        """Remove other generations, classes that this generation does not use, and partial files.

        Args:
            generation: Number of the generation to keep; 0 to keep none.
        """
        n_classes = len(self.counts(generation)) if generation else 0
        self._keep(
            generation,
            {
                _GENERATIONS: {f"{generation:06d}"} if generation else set(),
                _CLASSES: {f"{number:06d}" for number in range(n_classes)},
            },
        )

    def _keep(self, generation: int, kept: Mapping[str, set[str]]) -> None:
        """Remove all nodes of some folders except the given ones, and partial files."""
        self._latest = generation
        self._unsynced.clear()
        for folder, names in kept.items():
            if self.path is None:
                # by key, because zarr would parse the metadata of every class
                found = {key.split("/")[1] for key in self._in_memory if key.startswith(folder)}
                for name in found - names - {_METADATA}:
                    del self._root[f"{folder}/{name}"]
            else:  # a killed process may leave folders that are not Zarr nodes yet
                for path in (self.path / folder).glob("*/"):
                    if path.name not in names:
                        shutil.rmtree(path)
        if self.path is not None:  # a generation never refers to a partial file
            for place in (".", *kept):
                for path in (self.path / place).glob("*.partial"):
                    path.unlink()

    def _sync(self, nodes: Sequence[Path]) -> None:
        """Sync new nodes to disk: first their contents, then the folders that list them."""
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
            failing_as(f"cannot read {self.path}/{name}"),
            warnings.catch_warnings(category=ZarrUserWarning, action="ignore"),
        ):
            group = self._root.get(name)
            return set(group.keys()) if isinstance(group, zarr.Group) else set()


@contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Raise BufferStorageError for any of the errors that zarr raises on a damaged hierarchy."""
    try:
        yield
    except Exception as error:
        raise BufferStorageError(f"{what}: {error}") from error


def digest_of_counts(counts: Mapping[str, int]) -> str:
    """Return the SHA-256 of numbers of memories by class, in their order."""
    return hashlib.sha256(canonical_json(list(counts.items()))).hexdigest()
