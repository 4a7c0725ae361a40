"""Reading encoded images out of shards by sample id."""

import errno
import mmap
import sys
from collections import OrderedDict
from pathlib import Path
from tarfile import BLOCKSIZE, TarError, TarInfo
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.shards.addresses import local_path
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, load_manifest
from iirc_data.shards.remote import RemoteDataset, cache_folder
from iirc_data.shards.table import IMAGE_MODES, TABLE_NAME, SampleTable, load_table

_READ_AHEAD: int | None = getattr(mmap, "MADV_WILLNEED", None)
_MAX_OPEN_SHARDS = 512
# without it every map, and every view of one, holds a file descriptor
_NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class ShardStore:
    """A sharded dataset, opened for reading.

    Attributes:
        root: The shard folder; of a remote dataset, the folder that caches it.
        manifest: What it holds.
        table: One row per sample.
        looks: int8 (N,), what readers found out about each image: 1 where every decoder shows it
            alike, -1 where they may differ, -2 where it is malformed too, 0 before anyone looked.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        table: SampleTable,
        remote: RemoteDataset | None = None,
    ) -> None:
        self.root = root
        self.manifest = manifest
        self.table = table
        self.looks = np.zeros(len(table), np.int8)
        self._remote = remote
        self._open: OrderedDict[int, mmap.mmap] = OrderedDict()

    @classmethod
    def open(cls, address: PathLike, *, cache: PathLike | None = None) -> Self:
        """Open a dataset; reads the manifest and the sample table, no shard.

        Args:
            address: A shard folder that ``tools/shard_*.py`` or ``iirc data pull`` wrote, or the
                URL of one (``https://…``, ``s3://…``, whatever fsspec reads). Of a URL the
                shards are fetched when they are first read, and kept.
            cache: Folder that remote datasets are kept in; by default the environment variable
                ``IIRC_CACHE``, or ``~/.cache/iirc``.

        Raises:
            ShardError: There is no finished dataset, or manifest and table do not fit.
        """
        root = local_path(address)
        if root is None:
            remote = RemoteDataset.open(address)
            root = cache_folder(remote.manifest_text, cache)
            return cls(root, remote.manifest, remote.cached_table(root), remote)
        manifest = read_manifest(root)
        return cls(root, manifest, load_table(root / TABLE_NAME, manifest, str(root / TABLE_NAME)))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def digest(self) -> str:
        """Digest that names the data."""
        return self.manifest.digest

    def read(self, sample_id: int) -> NDArray[np.uint8]:
        """Return one encoded image.

        The system is asked to read it from the disk, and not waited for: several images that are
        asked for before the first one is looked at are read side by side.

        Args:
            sample_id: Row of the sample table.

        Returns:
            uint8 (bytes,), a read-only view of the memory-mapped shard.

        Raises:
            ShardError: The shard is missing or not of the size that the manifest gives.
        """
        shard = self._shard(int(self.table.shard[sample_id]))
        offset, size = int(self.table.offset[sample_id]), int(self.table.size[sample_id])
        if _READ_AHEAD is not None:
            page = offset - offset % mmap.PAGESIZE
            shard.madvise(_READ_AHEAD, page, offset + size - page)
        return np.frombuffer(shard, np.uint8, size, offset)

    def is_plain_rgb_or_gray(self, sample_id: int) -> bool:
        """Tell whether an image is stored as RGB or gray of 8 bits."""
        return IMAGE_MODES[self.table.mode[sample_id]] in ("RGB", "L")

    def name(self, sample_id: int) -> str:
        """Return shard path and member name of a sample, for errors."""
        number = int(self.table.shard[sample_id])
        start = int(self.table.offset[sample_id])
        try:
            header = self._shard(number)[start - BLOCKSIZE : start]
            member = TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except (ShardError, TarError):
            member = f"sample {sample_id}"
        return f"{self.root / self.manifest.shards[number].path}:{member}"

    def close(self) -> None:
        """Forget the open shards; views that were handed out stay valid."""
        self._open.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _shard(self, number: int) -> mmap.mmap:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard = self.manifest.shards[number]
        if self._remote is not None:
            self._remote.fetch(shard, self.root)
        path = self.root / shard.path
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_NO_DESCRIPTOR)
        except FileNotFoundError as error:
            raise ShardError(
                f"shard {path} is not here: if {self.root} is a copy of part of a dataset, "
                f"bring the shard with: iirc data pull ADDRESS {self.root}"
            ) from error
        except (OSError, ValueError) as error:
            too_many = isinstance(error, OSError) and error.errno == errno.EMFILE
            hint = "; allow more with: ulimit -n 16384" if too_many else ""
            raise ShardError(f"cannot read shard {path}: {error}{hint}") from error
        if len(mapped) != shard.bytes:
            raise ShardError(
                f"shard {path} has {len(mapped)} bytes, the manifest says {shard.bytes}: "
                "copy it again"
            )
        self._open[number] = mapped
        if len(self._open) > _MAX_OPEN_SHARDS:
            self._open.popitem(last=False)
        return mapped


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a shard folder.

    Raises:
        ShardError: The folder is no finished dataset.
    """
    try:
        text = (root / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise ShardError(
            f"{root} is not a finished shard folder (no readable {MANIFEST_NAME}): finish writing "
            "or pulling it by the same command again, or make one with tools/shard_folder.py"
        ) from error
    return load_manifest(text, str(root / MANIFEST_NAME))
