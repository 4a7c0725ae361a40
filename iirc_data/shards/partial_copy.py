"""The shards that a partial copy of a dataset lacks."""

from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from iirc_data.shards.manifest import Manifest, Shard
from iirc_data.shards.remote import has_size
from iirc_data.spelling import first_of


def absent_shards(root: Path, manifest: Manifest) -> list[Shard]:
    """Return the shards of a dataset that a folder lacks, or has with another size."""
    return [shard for shard in manifest.shards if not has_size(root / shard.path, shard.bytes)]


def absent_in_words(absent: Sequence[Shard], manifest: Manifest) -> str:
    """Return for example ``"2 of 20 shards (3.1 MB): train/cat-000000.tar, …"``."""
    size = decimal(sum(shard.bytes for shard in absent))
    names = first_of([shard.path for shard in absent])
    return f"{len(absent)} of {len(manifest.shards)} shards ({size}): {names}"
