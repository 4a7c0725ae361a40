"""Chunks of cached features: float32 rows, followed by their CRC-32C, as Zarr stores them.

Plain zarr reads them, but in four times as long or more, and writes past the limit of the cache.
"""

import logging
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.reading import open_regular

METADATA_NAME = "zarr.json"
CHECKSUM_BYTES = 4

_CHUNK_BYTES = 1 << 22
_MOST_ROWS = 1024
_NAMES: Any = {"name": "v2", "separator": "."}  # chunks lie beside the metadata: 0.0, 1.0, …

logger = logging.getLogger(__name__)


def chunk_rows(size: int) -> int:
    """Return the number of rows of a chunk, for features of ``size`` numbers."""
    return max(1, min(_MOST_ROWS, _CHUNK_BYTES // (4 * size)))


def chunk_name(number: int) -> str:
    """Return the file name of a chunk."""
    return f"{number}.0"


def metadata_of(shape: tuple[int, int], attributes: dict[str, Any]) -> bytes:
    """Return the content of ``zarr.json`` for features of a shape (samples, D)."""
    import zarr  # here, because commands and loaders of images need not wait for it
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(held),
        shape=shape,
        dtype="float32",
        chunks=(chunk_rows(shape[1]), shape[1]),
        fill_value=np.nan,
        compressors=Crc32cCodec(),
        chunk_key_encoding=_NAMES,
        attributes=attributes,
    )
    metadata: bytes = held[METADATA_NAME].to_bytes()
    return metadata


def read_chunk(path: Path, rows: NDArray[np.float32]) -> bool | None:
    """Read a chunk.

    Args:
        path: The file.
        rows: float32 (R, D), contiguous; receives the rows.

    Returns:
        True; False, with a warning, if the chunk is damaged; None if there is none.

    Raises:
        ShardError: The file cannot be read.
    """
    try:
        with open_regular(path) as file:
            n_read = file.readinto(_as_bytes(rows).data)
            checksum = file.read(CHECKSUM_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ShardError(f"cannot read {path}: {error.strerror or error}") from error
    if n_read == rows.nbytes and checksum == _checksum(rows):
        return True
    logger.warning("%s is damaged: its features are computed again", path)
    return False


def chunk_bytes(rows: NDArray[np.float32]) -> bytes:
    """Return the content of the file of a chunk, float32 (R, D)."""
    return rows.tobytes() + _checksum(rows)


def _as_bytes(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a view of contiguous rows, uint8 (bytes,)."""
    return rows.reshape(-1).view(np.uint8)


def _checksum(rows: NDArray[np.float32]) -> bytes:
    content = _as_bytes(rows)
    content.flags.writeable = False  # which the library requires
    return int(google_crc32c.value(content)).to_bytes(CHECKSUM_BYTES, "little")
