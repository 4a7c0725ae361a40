"""Reading encoded images out of shards by sample id."""

import mmap
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, load_manifest
from iirc_data.shards.table import IMAGE_MODES, TABLE_NAME, SampleTable

_MAX_OPEN_SHARDS = 512
_TAR_BLOCK = 512


class ShardStore:
    """A shard folder, opened for reading.

    Attributes:
        root: The folder.
        manifest: What it holds.
        table: One row per sample.
    """

    def __init__(self, root: Path, manifest: Manifest, table: SampleTable) -> None:
        self.root = root
        self.manifest = manifest
        self.table = table
        self._open: OrderedDict[int, mmap.mmap] = OrderedDict()

    @classmethod
    def open(cls, root: PathLike) -> Self:
        """Open a shard folder; reads the manifest and the sample table, no shard.

        Args:
            root: The folder that ``tools/shard_*.py`` wrote.

        Raises:
            ShardError: The folder is no finished dataset, or manifest and table do not fit.
        """
        root = Path(root)
        try:
            text = (root / MANIFEST_NAME).read_bytes()
        except OSError as error:
            raise ShardError(
                f"{root} is not a finished shard folder (no readable {MANIFEST_NAME}): "
                "make one with tools/shard_folder.py"
            ) from error
        manifest = load_manifest(text, str(root / MANIFEST_NAME))
        table = SampleTable.load(root / TABLE_NAME, str(root / TABLE_NAME))
        if table.digest() != manifest.table_sha256:
            raise ShardError(
                f"{root / TABLE_NAME} does not fit its manifest: copy the folder again"
            )
        return cls(root, manifest, table)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def digest(self) -> str:
        """Digest that names the data."""
        return self.manifest.digest

    def read(self, sample_id: int) -> NDArray[np.uint8]:
        """Return one encoded image.

        Args:
            sample_id: Row of the sample table.

        Returns:
            uint8 (bytes,), a read-only view of the memory-mapped shard.

        Raises:
            ShardError: The shard is missing or not of the size that the manifest gives.
        """
        shard = self._shard(int(self.table.shard[sample_id]))
        return np.frombuffer(
            shard, np.uint8, int(self.table.size[sample_id]), int(self.table.offset[sample_id])
        )

    def is_plain_rgb_or_gray(self, sample_id: int) -> bool:
        """Tell whether every decoder turns this image into the same RGB pixels."""
        return IMAGE_MODES[self.table.mode[sample_id]] in ("RGB", "L")

    def name(self, sample_id: int) -> str:
        """Return shard path and key of a sample, for errors."""
        shard = self.manifest.shards[self.table.shard[sample_id]]
        header_at = int(self.table.offset[sample_id]) - _TAR_BLOCK
        try:
            with (self.root / shard.path).open("rb") as file:
                file.seek(header_at)
                header = file.read(_TAR_BLOCK)
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except (OSError, tarfile.TarError):
            member = f"sample {sample_id}"
        return f"{self.root / shard.path}:{member}"

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
        path = self.root / shard.path
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ShardError(f"cannot read shard {path}: {error}") from error
        if len(mapped) != shard.bytes:
            raise ShardError(
                f"shard {path} has {len(mapped)} bytes, the manifest says {shard.bytes}: "
                "copy it again"
            )
        self._open[number] = mapped
        if len(self._open) > _MAX_OPEN_SHARDS:
            self._open.popitem(last=False)
        return mapped
