"""Memories as arrays: what the store of a replay buffer writes of a class, and reads again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import FEWEST_LABELS, NO_LABEL, NO_LABEL_PLACEHOLDER, Labels
from iirc_data.files import canonical_json
from iirc_data.label_combinations import names_of_labels

Arrays = dict[str, NDArray[Any]]

TABLES = ("offsets", "labels", "sizes")
DATASETS = "datasets"
_ARRAYS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "data": ("uint8", (-1,)),
    "offsets": ("int64", (-1,)),
    "labels": ("int32", (-1, None)),
    "sizes": ("int32", (-1, 2)),
    "datasets": ("int64", (-1,)),
}
"""Dtype and shape of the arrays of a class, -1 and None for any; the last one is optional."""


@dataclass(frozen=True)
class Memory:
    """A memory: one image with its labels.

    Attributes:
        data: The encoded image (RGB or grayscale, JPEG or PNG).
        labels: The labels visible when the memory was chosen, ``NO_LABEL_PLACEHOLDER`` for none.
        height: Pixels.
        width: Pixels.
        dataset: Number of the dataset that the image is from, where a run has several.
    """

    data: bytes
    labels: Labels
    height: int
    width: int
    dataset: int = 0


@dataclass(frozen=True)
class ClassMemories:
    """The memories of one class, most important first.

    Attributes:
        label_names: Names of the labels that occur.
        data: Concatenated encoded images, uint8 (bytes,).
        offsets: Where each image starts and ends in ``data``, int64 (memories + 1,).
        labels: Indices into ``label_names``, -1 for none, int32 (memories, L).
        sizes: Height and width in pixels, int32 (memories, 2).
        datasets: Number of each memory's dataset, int64 (memories,).
    """

    label_names: list[str]
    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int32]
    datasets: NDArray[np.int64]

    def encoded(self, number: int) -> NDArray[np.uint8]:
        """Return the encoded image of a memory, uint8 (bytes,)."""
        return self.data[self.offsets[number] : self.offsets[number + 1]]

    def labels_of(self, number: int) -> Labels:
        """Return the labels of a memory, ``NO_LABEL_PLACEHOLDER`` for none."""
        return names_of_labels(self.labels[number], self.label_names)


def encoded_class(memories: Sequence[Memory]) -> tuple[list[str], Arrays]:
    """Return the names of the labels of memories, and their arrays.

    Args:
        memories: The memories of a class, most important first.
    """
    label_names = sorted({name for m in memories for name in m.labels} - {NO_LABEL_PLACEHOLDER})
    codes = {name: index for index, name in enumerate(label_names)}
    width = max((len(memory.labels) for memory in memories), default=0)
    datasets = [memory.dataset for memory in memories]
    arrays = typed(
        {
            "data": np.frombuffer(b"".join(memory.data for memory in memories), np.uint8),
            "offsets": np.cumsum([0, *(len(memory.data) for memory in memories)]),
            "labels": [_codes(memory.labels, codes, width) for memory in memories],
            "sizes": [[memory.height, memory.width] for memory in memories],
            # left out of the buffers of one dataset, which earlier releases read
            **({DATASETS: datasets} if any(datasets) else {}),
        }
    )
    return label_names, arrays


def _codes(labels: Labels, codes: Mapping[str, int], width: int) -> list[int]:
    known = [codes.get(name, NO_LABEL) for name in labels]
    return known + [NO_LABEL] * (width - len(known))


def typed(values: Mapping[str, Any]) -> Arrays:
    """Return arrays of a class, given their values, in their dtypes and shapes."""
    return {
        name: _shaped(np.asarray(values[name]).astype(dtype, copy=False), shape)
        for name, (dtype, shape) in _ARRAYS.items()
        if name in values
    }


def _shaped(values: NDArray[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
    n_columns = values.shape[1] if values.ndim > 1 else FEWEST_LABELS  # no row, no columns
    return values.reshape([n_columns if n is None else n for n in shape])


def digest_of_class(class_name: str, label_names: list[str], arrays: Arrays) -> str:
    """Return the SHA-256 of the names and arrays of a class."""
    digest = hashlib.sha256(canonical_json([class_name, label_names]))
    for name in filter(arrays.__contains__, _ARRAYS):
        digest.update(canonical_json(arrays[name].shape))
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def read_array(array: Any, name: str) -> NDArray[Any]:
    """Read an array after checking dtype, shape, chunks and that no bytes are missing.

    Raises:
        ValueError: A check fails.
    """
    dtype, shape = _ARRAYS[name]
    fits = len(array.shape) == len(shape) and all(
        n in (-1, None, found) for n, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        raise ValueError(f"{array.name} is {array.dtype} {array.shape}, expected {dtype} {shape}")
    if array.chunks != tuple(max(n, 1) for n in array.shape):
        raise ValueError(f"{array.name} has chunks of {array.chunks}, expected a single chunk")
    if array.nbytes_stored() < array.nbytes:  # zarr would fill in zeros
        raise ValueError(f"{array.name} is incomplete: {array.nbytes} bytes expected")
    return np.asarray(array[:])
