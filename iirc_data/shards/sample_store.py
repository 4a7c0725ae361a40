"""What everything that reads samples needs of the data: one dataset, or a union of several."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from iirc_data.shards.reading_plan import ReadingPlan
from iirc_data.shards.store import ShardStore


class SampleStore(Protocol):
    """Encoded images by sample id, read by any number of threads; it can be pickled.

    :class:`~iirc_data.shards.store.ShardStore` and :class:`~iirc_data.shards.union.UnionStore`
    implement it.
    """

    @property
    def datasets(self) -> Mapping[str, ShardStore]:
        """The datasets by name. Their samples follow one another in the numbering of samples."""

    @property
    def digest(self) -> str:
        """Digest that identifies the data."""

    @property
    def is_remote(self) -> bool:
        """Whether shards are fetched, all or some of them."""

    @property
    def looks(self) -> NDArray[np.int8]:
        """int8 (N,), writable; see :attr:`ShardStore.looks`."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def sizes(self, sample_ids: NDArray[np.int64], /) -> NDArray[np.int32]:
        """Return the height and width in pixels of samples, int32 (N, 2)."""

    def encoded_sizes(self, sample_ids: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the sizes of encoded images in bytes, int64 (N,)."""

    def dataset_numbers(self, sample_ids: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the number of each sample's dataset, int64 (N,): its place in ``datasets``."""

    def read(self, sample_id: int, /) -> NDArray[np.uint8]:
        """Return one encoded image, uint8 (bytes,), read-only."""

    def read_many(self, sample_ids: NDArray[np.int64], /) -> list[NDArray[np.uint8]]:
        """Return several encoded images."""

    def will_read(self, sample_ids: NDArray[np.int64], /) -> None:
        """Announce reads, without waiting for them."""

    def plan(self, sample_ids: NDArray[np.int64], /) -> ReadingPlan:
        """Announce reads in their order; see :meth:`ShardStore.plan`."""

    def expect(self, sample_ids: NDArray[np.int64], /) -> None:
        """Announce later reads; see :meth:`ShardStore.expect`."""

    def block_numbers(self, sample_ids: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the number of the block that holds each sample, int64 (N,)."""

    def name(self, sample_id: int, /) -> str:
        """Return the shard path and member name of a sample, for error messages."""

    def close(self) -> None:
        """Close all shards; reading opens them again."""
