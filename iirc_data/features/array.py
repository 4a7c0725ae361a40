"""The features of one dataset: rows in memory, and the Zarr array in the cache that keeps them.

The array is a folder of the cache, named by the digest of its key, which plain ``zarr`` can read::

    zarr.json    float32 (samples, D): the rows of the sample table, NaN where not computed;
                 attributes: format, version and the key
    0.0, 1.0, …  chunks of rows, each with its CRC-32C

A chunk is written under a temporary name and renamed, by the one process that holds it. It depends
on the key only, so any number of processes may fill an array together, and a chunk that is damaged
or was evicted is computed again.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.features.chunks import (
    METADATA_NAME,
    chunk_bytes,
    chunk_name,
    chunk_rows,
    metadata_of,
    read_chunk,
)
from iirc_data.features.key import FORMAT, VERSION, FeatureKey
from iirc_data.locks import sole_writer_of
from iirc_data.reading import read_regular
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.remote import CACHE_VARIABLE

NOT_FEATURES = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""What :func:`parse_metadata` raises for a text that does not describe features."""


class FeatureArray:
    """The features of a dataset.

    Args:
        cache: The cache that keeps them.
        key: What they are a function of.
        shape: Number of samples of the dataset, and of numbers of a feature.

    Attributes:
        folder: Folder of the Zarr array.
        values: float32 (samples, D), the rows that were loaded or computed; other rows are 0.
        present: bool (samples,), which rows these are.
    """

    def __init__(self, cache: CacheFolder, key: FeatureKey, shape: tuple[int, int]) -> None:
        self.folder = cache.base / key.digest
        self.key = key
        self.shape = n_samples, size = shape
        self.rows_per_chunk = chunk_rows(size)
        n_chunks = -(-n_samples // self.rows_per_chunk)
        # zeros that are never written take no memory
        self._values = np.zeros((n_chunks * self.rows_per_chunk, size), np.float32)
        self.values = self._values[:n_samples]
        self.present = np.zeros(n_samples, np.bool_)
        self._cache = cache

    @classmethod
    def open(cls, cache: CacheFolder, digest: str) -> Self:
        """Open an array that is in a cache; no row is loaded.

        Raises:
            ShardError: There is none, or it is not one of features.
        """
        return cls(cache, *described(cache.base / digest))

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self._values) // self.rows_per_chunk

    def chunks_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the chunks that hold rows, ascending."""
        return np.unique(rows // self.rows_per_chunk)

    def path(self, chunk: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / chunk_name(chunk)

    def load(self, chunk: int) -> None:
        """Load the rows of a chunk that are in the cache.

        Raises:
            ShardError: The cache cannot be read.
        """
        rows = self._rows(chunk)
        found = read_chunk(self.path(chunk), self._values[rows])
        if found is not None:
            self.present[rows] = ~np.isnan(self.values[rows, 0]) if found else False
        if found:
            with suppress(OSError):
                os.utime(self.path(chunk))  # the cache evicts what was not used for long

    def save(self, chunk: int) -> None:
        """Write the rows of a chunk that are in memory, which the caller holds.

        Raises:
            ShardError: The cache cannot be written.
        """
        rows = self._rows(chunk)
        block = np.full((self.rows_per_chunk, self.shape[1]), np.nan, np.float32)
        block[: len(self.present[rows])][self.present[rows]] = self.values[rows][self.present[rows]]
        metadata = self.folder / METADATA_NAME
        if not metadata.exists():
            attributes = {"format": FORMAT, "version": VERSION, **self.key.values()}
            self._write(metadata, metadata_of(self.shape, attributes))
        self._write(self.path(chunk), chunk_bytes(block))

    @contextmanager
    def held(self, chunk: int, patience: float | None = None) -> Iterator[None]:
        """Hold a chunk, so that no other process computes it.

        Args:
            chunk: Its number.
            patience: Seconds to wait for another process; None for as long as it lives.

        Raises:
            InUseError: Another process has held it for so long.
            ShardError: The cache cannot be written.
        """
        with ExitStack() as lock:
            with self._writable():
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(sole_writer_of(self.path(chunk), patience=patience))
            yield

    def _write(self, path: Path, content: bytes) -> None:
        with self._writable(), self._cache.adding(path, len(content)) as file:
            file.write(content)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ShardError(
                f"cannot keep features in {self.folder}: {error.strerror or error}; set "
                f"{CACHE_VARIABLE} to a writable folder with room"
            ) from error

    def _rows(self, chunk: int) -> slice:
        start = chunk * self.rows_per_chunk
        return slice(start, start + self.rows_per_chunk)


def described(folder: Path) -> tuple[FeatureKey, tuple[int, int]]:
    """Return the key and the shape of an array of features.

    Raises:
        ShardError: The folder holds none.
    """
    path = folder / METADATA_NAME
    try:
        return parse_metadata(read_regular(path))
    except (OSError, *NOT_FEATURES) as error:
        raise ShardError(f"{path} does not describe features: {error}") from error


def parse_metadata(text: bytes) -> tuple[FeatureKey, tuple[int, int]]:
    """Return the key and the shape of an array of features, from its ``zarr.json``.

    Raises:
        ValueError: The text is another one than this release writes; or another exception of
            :data:`NOT_FEATURES`.
    """
    attributes = dict(json.loads(text)["attributes"])
    found = attributes.pop("format"), attributes.pop("version")
    if found != (FORMAT, VERSION):
        raise ValueError(f"it is {found[0]!r} version {found[1]!r}, expected {FORMAT!r} {VERSION}")
    n_samples, size = map(int, json.loads(text)["shape"])
    if n_samples < 0 or size < 1:
        raise ValueError(f"its shape is {n_samples} x {size}")
    key = FeatureKey.model_validate(attributes)
    if metadata_of((n_samples, size), json.loads(text)["attributes"]) != text:
        raise ValueError("its layout is another one")
    return key, (n_samples, size)
