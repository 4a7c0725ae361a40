"""Several datasets read as one: their samples follow one another in one numbering."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.files import canonical_json
from iirc_data.shards.reading_plan import ReadingPlan
from iirc_data.shards.store import ShardStore


class UnionStore:
    """Several sharded datasets, read by any number of threads.

    Sample ``i`` of a dataset has the id ``i`` plus the number of samples of the datasets before it.

    Args:
        datasets: The datasets by name, at least one.

    Attributes:
        datasets: The datasets by name.
        looks: int8 (N,), see :attr:`ShardStore.looks`.
    """

    def __init__(self, datasets: Mapping[str, ShardStore]) -> None:
        self.datasets = dict(datasets)
        self._stores = list(self.datasets.values())
        self._starts = np.cumsum([0, *map(len, self._stores)], dtype=np.int64)
        self.looks = np.zeros(len(self), np.int8)

    @classmethod
    def open(
        cls,
        places: Mapping[str, PathLike],
        *,
        cache: PathLike | None = None,
        cache_size: int | str | None = None,
    ) -> Self:
        """Open datasets.

        Args:
            places: Name of each dataset to its address, see :meth:`ShardStore.open`.
            cache: See :meth:`ShardStore.open`.
            cache_size: See :meth:`ShardStore.open`.

        Raises:
            ShardError: A dataset cannot be opened; the message names it.
        """
        opened = {}
        for name, address in places.items():
            try:
                opened[name] = ShardStore.open(address, cache=cache, cache_size=cache_size)
            except ShardError as error:
                raise ShardError(f"dataset {name!r}: {error}") from error
        return cls(opened)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        """Digest of the names and digests of the datasets, in order."""
        parts = [[name, store.digest] for name, store in self.datasets.items()]
        return hashlib.sha256(canonical_json(parts)).hexdigest()

    def sizes(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the height and width in pixels of samples, int32 (N, 2)."""
        sizes = np.empty((len(sample_ids), 2), np.int32)
        for store, places, rows in self._parts(sample_ids):
            sizes[places] = store.sizes(rows)
        return sizes

    def encoded_sizes(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of encoded images in bytes, int64 (N,)."""
        sizes = np.empty(len(sample_ids), np.int64)
        for store, places, rows in self._parts(sample_ids):
            sizes[places] = store.encoded_sizes(rows)
        return sizes

    def dataset_numbers(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each sample's dataset, int64 (N,): its place in ``datasets``.

        Raises:
            IndexError: There is no such sample.
        """
        if len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < len(self):
            raise IndexError(f"sample ids are 0 to {len(self) - 1}, got others")
        return np.searchsorted(self._starts, sample_ids, side="right") - 1

    def read(self, sample_id: int) -> NDArray[np.uint8]:
        """Return one encoded image; see :meth:`ShardStore.read`."""
        store, row = self._locate(sample_id)
        return store.read(row)

    def read_many(self, sample_ids: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return several encoded images; see :meth:`ShardStore.read_many`."""
        images: dict[int, NDArray[np.uint8]] = {}
        for store, places, rows in self._parts(sample_ids):
            images.update(zip(places.tolist(), store.read_many(rows), strict=True))
        return [images[place] for place in range(len(sample_ids))]

    def will_read(self, sample_ids: NDArray[np.int64]) -> None:
        """Announce reads; see :meth:`ShardStore.will_read`."""
        for store, _, rows in self._parts(sample_ids):
            store.will_read(rows)

    @property
    def is_remote(self) -> bool:
        """Whether shards of one of the datasets are fetched."""
        return any(store.is_remote for store in self._stores)

    def plan(self, sample_ids: NDArray[np.int64]) -> ReadingPlan:
        """Announce reads in their order; see :meth:`ShardStore.plan`."""
        return _UnionPlan(
            [(places, store.plan(rows)) for store, places, rows in self._parts(sample_ids)]
        )

    def expect(self, sample_ids: NDArray[np.int64]) -> None:
        """Announce later reads; see :meth:`ShardStore.expect`."""
        for store, _, rows in self._parts(sample_ids):
            store.expect(rows)

    def block_numbers(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the block that holds each sample, int64 (N,)."""
        numbers = np.empty(len(sample_ids), np.int64)
        first = np.cumsum([0, *(len(store.blocks) for store in self._stores)])
        for store, places, rows in self._parts(sample_ids):
            numbers[places] = first[self._stores.index(store)] + store.block_numbers(rows)
        return numbers

    def name(self, sample_id: int) -> str:
        """Return the shard path and member name of a sample, for error messages."""
        store, row = self._locate(sample_id)
        return store.name(row)

    def close(self) -> None:
        """Close all shards; reading opens them again."""
        for store in self._stores:
            store.close()

    def _locate(self, sample_id: int) -> tuple[ShardStore, int]:
        number = int(self.dataset_numbers(np.array([sample_id], np.int64))[0])
        return self._stores[number], sample_id - int(self._starts[number])

    def _parts(
        self, sample_ids: NDArray[np.int64]
    ) -> Iterator[tuple[ShardStore, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the datasets of samples, each with its samples' places and rows."""
        numbers = self.dataset_numbers(sample_ids)
        for number, store in enumerate(self._stores):
            places = np.flatnonzero(numbers == number)
            if len(places):
                yield store, places, sample_ids[places] - self._starts[number]


class _UnionPlan:
    """The plans of several datasets.

    Args:
        parts: For each dataset the places, ascending, of its samples among all that are read, and
            its plan.
    """

    def __init__(self, parts: Sequence[tuple[NDArray[np.int64], ReadingPlan]]) -> None:
        self._parts = parts
        self._n_read = 0

    def is_ready(self, n: int) -> bool:
        """Return whether the next ``n`` samples can be read without waiting for a transfer."""
        for places, plan in self._parts:
            start, stop = np.searchsorted(places, [self._n_read, self._n_read + n])
            if stop > start and not plan.is_ready(int(stop - start)):
                return False
        return True

    def advance(self, n: int) -> None:
        """Record that the reader has read ``n`` more samples."""
        before, self._n_read = self._n_read, self._n_read + n
        for places, plan in self._parts:
            start, stop = np.searchsorted(places, [before, self._n_read])
            if stop > start:
                plan.advance(int(stop - start))

    def close(self) -> None:
        """Record that the reader reads no more."""
        for _, plan in self._parts:
            plan.close()
