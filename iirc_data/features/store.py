"""Features in the place of encoded images: what loaders, buffers and methods then read."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.features.array import FeatureArray
from iirc_data.shards.reading_plan import NoPlan, ReadingPlan
from iirc_data.shards.sample_store import SampleStore
from iirc_data.shards.store import ShardStore

_AT_ONCE = 4096


class FeatureStore:
    """The features of samples, as a :class:`~iirc_data.shards.sample_store.SampleStore`.

    A sample is an "image" of one pixel with D channels. Its encoded form is the float32 numbers of
    its feature, so that a buffer keeps features as it keeps encoded images.

    Args:
        images: The images.
        arrays: The features of each of its datasets, loaded.

    Attributes:
        images: The images, which need not be here.
        looks: int8 (N,), 1 everywhere: there is one way to decode features.
        arrays: The features of each dataset.
        size: Number of numbers of a feature, D.
    """

    def __init__(self, images: SampleStore, arrays: Sequence[FeatureArray]) -> None:
        self.images = images
        self.looks = np.ones(len(images), np.int8)
        self.size = arrays[0].shape[1]
        self.arrays = arrays
        self._starts = np.cumsum([0, *(len(array.values) for array in arrays)])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def datasets(self) -> Mapping[str, ShardStore]:
        """The datasets of the images by name."""
        return self.images.datasets

    @property
    def digest(self) -> str:
        """Digest of the images."""
        return self.images.digest

    @property
    def is_remote(self) -> bool:
        """False: all features that a run needs are in memory."""
        return False

    def values(self, sample_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of samples, float32 (N, D).

        Raises:
            ShardError: Features of a sample were not loaded.
        """
        if len(self.arrays) == 1:
            return _rows(self.arrays[0], sample_ids)
        numbers = self.dataset_numbers(sample_ids)
        found = np.empty((len(sample_ids), self.size), np.float32)
        for number, array in enumerate(self.arrays):
            places = np.flatnonzero(numbers == number)
            found[places] = _rows(array, sample_ids[places] - self._starts[number])
        return found

    def digest_of(self, sample_ids: NDArray[np.int64]) -> str:
        """Return a digest of features: of the sum of each one's bits, as 32-bit integers."""
        digest = hashlib.sha256()
        for start in range(0, len(sample_ids), _AT_ONCE):
            bits = self.values(sample_ids[start : start + _AT_ONCE]).view(np.uint32)
            digest.update(bits.sum(axis=1, dtype=np.uint64).tobytes())
        return digest.hexdigest()

    def sizes(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the height and width of samples, int32 (N, 2): 1."""
        return np.ones((len(sample_ids), 2), np.int32)

    def encoded_sizes(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of features in bytes, int64 (N,)."""
        return np.full(len(sample_ids), 4 * self.size, np.int64)

    def dataset_numbers(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each sample's dataset, int64 (N,)."""
        return self.images.dataset_numbers(sample_ids)

    def read(self, sample_id: int) -> NDArray[np.uint8]:
        """Return the bytes of one feature, uint8 (4 D,)."""
        return self.read_many(np.array([sample_id], np.int64))[0]

    def read_many(self, sample_ids: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the bytes of several features."""
        return list(self.values(sample_ids).view(np.uint8))

    def will_read(self, sample_ids: NDArray[np.int64]) -> None:
        """Do nothing: features are in memory."""

    def plan(self, sample_ids: NDArray[np.int64]) -> ReadingPlan:
        """Return the plan for data of which nothing is fetched."""
        return NoPlan()

    def expect(self, sample_ids: NDArray[np.int64]) -> None:
        """Do nothing: features are in memory."""

    def block_numbers(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the block that holds each image, int64 (N,)."""
        return self.images.block_numbers(sample_ids)

    def name(self, sample_id: int) -> str:
        """Return the shard path and member name of a sample's image, for error messages."""
        return self.images.name(sample_id)

    def close(self) -> None:
        """Do nothing: the images have their own owner."""


def images_of(store: SampleStore) -> SampleStore:
    """Return the images of samples: of features, those that they were computed from."""
    return store.images if isinstance(store, FeatureStore) else store


def _rows(array: FeatureArray, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    if not array.present[rows].all():
        raise ShardError(
            f"{array.folder} lacks the features of sample {rows[~array.present[rows]][0]} of "
            f"{array.key.dataset}: compute them with iirc features compute"
        )
    return array.values[rows]
