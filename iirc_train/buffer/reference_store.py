"""Storage of memories that are references to samples: a Zarr v3 hierarchy.

Layout of version 4, beside the generations of version 3::

    segments/000001       group of arrays with a row for each slot that has changed:
                          slots int64; sample_ids int64, rows of the sample table; labels int32
                          (rows, L), indices into label_names, -1 for none; tasks int64, the task
                          during which the memory was chosen; columns/NAME float (rows, width),
                          what a method keeps for each memory, NaN where it has fewer values.
                          Attributes: label_names; columns, their names; sha256 of all of these
    generations/000001    also has the attributes segments, which are read in this order; n_seen,
                          the number of samples that the buffer was offered; n_classes, the number
                          of classes seen at the end of a task, null within one

A segment never changes. A commit writes the slots that have changed, unless the segments would hold
more than twice the buffer: then it writes one segment of everything. The generations of the ends of
tasks are kept. Earlier releases refuse to read version 4.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from iirc_data.errors import BufferStorageError
from iirc_data.files import canonical_json
from iirc_train.buffer.store import BufferStore, digest_of_counts, failing_as

_SEGMENTS = "segments"
_GENERATIONS = "generations"
_COLUMNS = "columns/"
_DTYPES = {"slots": "int64", "sample_ids": "int64", "labels": "int32", "tasks": "int64"}


@dataclass(frozen=True)
class Segment:
    """References that some slots hold, one row per slot.

    Attributes:
        slots: int64 (N,).
        sample_ids: int64 (N,), rows of the sample table.
        labels: int32 (N, L), indices into ``label_names``, -1 for none.
        tasks: int64 (N,), the task during which each was chosen.
        label_names: Names of the labels.
        columns: The columns by name, float (N, width).
    """

    slots: NDArray[np.int64]
    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    tasks: NDArray[np.int64]
    label_names: list[str]
    columns: Mapping[str, NDArray[np.floating]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by their names in the hierarchy."""
        columns = {_COLUMNS + name: values for name, values in self.columns.items()}
        return {name: getattr(self, name) for name in _DTYPES} | columns

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], label_names: list[str]) -> Self:
        """Return the segment of :meth:`arrays`."""
        columns = {n.removeprefix(_COLUMNS): v for n, v in arrays.items() if n not in _DTYPES}
        return cls(**{n: arrays[n] for n in _DTYPES}, label_names=label_names, columns=columns)

    def digest(self) -> str:
        """Return the SHA-256 of names, shapes, types and values."""
        digest = hashlib.sha256(canonical_json(self.label_names))
        for name, values in sorted(self.arrays().items()):
            digest.update(canonical_json([name, values.dtype.name, *values.shape]))
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


class Generation(NamedTuple):
    """What a generation records.

    Attributes:
        counts: Number of memories of each class.
        segments: Numbers of the segments, in the order of reading.
        n_seen: Number of samples that the buffer was offered.
        n_classes: Number of classes seen, at the end of a task; None within one.
    """

    counts: Mapping[str, int]
    segments: Sequence[int]
    n_seen: int
    n_classes: int | None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group, with digests."""
        plain = {**self._asdict(), "counts": dict(self.counts), "segments": list(self.segments)}
        return {**plain, "sha256": digest_of_counts(self.counts), "sha256_of_all": _sha256(plain)}

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self:
        """Return the generation of a group's attributes.

        Raises:
            ValueError: They do not match their digest.
        """
        plain = {name: attributes[name] for name in cls._fields}
        plain["counts"] = dict(plain["counts"])
        if attributes["sha256_of_all"] != _sha256(plain):
            raise ValueError("its digest does not match")
        return cls(**plain)


class ReferenceStore(BufferStore):
    """The stored segments and generations of a buffer of references."""

    version: ClassVar[int] = 4
    readable_versions: ClassVar[tuple[int, ...]] = (4,)

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        super().__init__(path, read_only=read_only)
        self._known: dict[int, Generation] | None = None

    def write_segment(self, segment: Segment, number: int) -> None:
        """Write a segment. An unreferenced one with this number is replaced.

        Raises:
            BufferStorageError: The hierarchy is damaged, or the disk is full.
        """
        name = f"{_SEGMENTS}/{number:06d}"
        attributes = {
            "label_names": segment.label_names,
            "columns": sorted(segment.columns),
            "sha256": segment.digest(),
        }
        with failing_as(f"cannot write {self.path}/{name}"):
            self._root.require_group(_SEGMENTS)
            group = self._root.create_group(name, attributes=attributes, overwrite=True)
            for array, values in segment.arrays().items():
                group.create_array(
                    array,
                    data=values,
                    chunks=tuple(max(n, 1) for n in values.shape),
                    compressors=(ZstdCodec(level=1), Crc32cCodec()),
                    config={"write_empty_chunks": True},  # so that a lost chunk is noticed
                )
        if self.path is not None:
            self._unsynced.append(self.path / name)

    def read_segment(self, number: int) -> Segment:
        """Read a segment.

        Raises:
            BufferStorageError: It is missing or damaged.
        """
        name = f"{_SEGMENTS}/{number:06d}"
        with failing_as(f"cannot read {self.path}/{name}"):
            group: Any = self._root[name]
            attributes = group.attrs.asdict()
            names = [*_DTYPES, *(_COLUMNS + column for column in attributes["columns"])]
            arrays = {name: _read(group[name]) for name in names}
            segment = Segment.of(arrays, [str(label) for label in attributes["label_names"]])
            wrong = attributes["sha256"] != segment.digest()
        if wrong:
            raise BufferStorageError(f"{self.path}/{name} is damaged: its digest does not match")
        return segment

    def next_segment(self) -> int:
        """Return the number after those of all segments that a generation uses."""
        used = [number for each in self._generations().values() for number in each.segments]
        return max(used, default=0) + 1

    def commit_generation(self, generation: Generation) -> int:
        """Write a generation; see :meth:`BufferStore.commit`."""
        known = self._generations()
        number = self._write_generation(generation.attributes())
        known[number] = generation
        return number

    def _generations(self, latest: int | None = None) -> dict[int, Generation]:
        """Return the generations; each is read once, because the folder has no other writer.

        Args:
            latest: Do not read later ones, which may be incomplete; None reads all.
        """
        if self._known is None:
            numbers = [n for n in self.generations() if latest is None or n <= latest]
            self._known = {number: self.generation(number) for number in numbers}
        return self._known

    def generation(self, number: int) -> Generation:
        """Read a generation.

        Raises:
            BufferStorageError: It does not exist, or is damaged.
        """
        self.counts(number)  # names the generations that there are if it is missing
        name = f"{_GENERATIONS}/{number:06d}"
        with failing_as(f"cannot read {self.path}/{name}"):
            node: Any = self._root[name]
            return Generation.of(node.attrs.asdict())

    def after_classes(self, n_classes: int) -> int | None:
        """Return the latest generation of the end of a task after so many classes, or None."""
        numbers = sorted(self.generations(), reverse=True)
        return next((n for n in numbers if self.generation(n).n_classes == n_classes), None)

    def collect(self, generation: int) -> None:
        """Remove what neither this generation nor one of the end of an earlier task uses.

        Args:
            generation: Number of the generation to keep; 0 to keep none.
        """
        kept = {
            number: each
            for number, each in self._generations(generation).items()
            if number == generation or (number < generation and each.n_classes is not None)
        }
        self._known = kept
        segments = {number for each in kept.values() for number in each.segments}
        self._keep(
            generation,
            {
                _GENERATIONS: {f"{number:06d}" for number in kept},
                _SEGMENTS: {f"{number:06d}" for number in segments},
            },
        )

    def copy_memories(self, other: BufferStore, state: Mapping[str, Any]) -> int:
        """Copy the generation of a checkpoint; see :meth:`BufferStore.copy_memories`."""
        assert isinstance(other, ReferenceStore)
        generation = other.generation(int(state["generation"]))
        for segment in generation.segments:
            self.write_segment(other.read_segment(segment), segment)
        return self.commit_generation(generation)


def _read(array: Any) -> NDArray[Any]:
    """Read an array, after checking that no bytes are missing.

    Raises:
        ValueError: The chunk is missing, which zarr would fill with zeros.
    """
    dtype = _DTYPES.get(array.basename)
    if dtype is not None and array.dtype != dtype:
        raise ValueError(f"{array.name} is {array.dtype}, expected {dtype}")
    if array.nchunks_initialized < array.nchunks:
        raise ValueError(f"{array.name} is incomplete")
    return np.asarray(array[:])


def _sha256(plain: Mapping[str, Any]) -> str:
    items = {**plain, "counts": list(plain["counts"].items())}
    return hashlib.sha256(canonical_json(items)).hexdigest()
