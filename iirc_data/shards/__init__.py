"""Per-class tar shards, their manifest and sample table: writing, opening, reading."""

from iirc_data.shards.manifest import Manifest, Shard, load_manifest
from iirc_data.shards.store import ShardStore
from iirc_data.shards.table import SampleTable
from iirc_data.shards.writer import write_shards

__all__ = ["Manifest", "SampleTable", "Shard", "ShardStore", "load_manifest", "write_shards"]
