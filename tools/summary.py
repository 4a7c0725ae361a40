"""What was sharded, beside what was expected."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from iirc_data.benchmarks import Benchmark
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.shards import Manifest, ShardStore
from iirc_data.task_view import check_classes, split_sample_ids

_BENCHMARK_SPLITS: tuple[SplitName, ...] = (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)


def summarise(
    out: Path,
    manifest: Manifest,
    *,
    expected: Mapping[str, int] | None = None,
    benchmark: Benchmark | None = None,
) -> None:
    """Print what was written, beside what was expected.

    Args:
        out: The shard folder.
        manifest: Its manifest.
        expected: Images per split, where they are known.
        benchmark: The benchmark that the dataset is made for.
    """
    table = Table("split", "classes", "shards", "images", "expected")
    for split, shards in manifest.splits.items():
        images = sum(shard.samples for shard in shards)
        wanted = (expected or {}).get(split)
        table.add_row(
            split,
            f"{len({shard.class_name for shard in shards}):,}",
            f"{len(shards):,}",
            f"{images:,}",
            "" if wanted is None else f"{wanted:,}" + (" ✓" if wanted == images else " differs"),
        )
    console = Console()
    console.print(table)
    if benchmark is not None:
        console.print(_fit(out, benchmark), markup=False, highlight=False, soft_wrap=True)
    size = sum(shard.bytes for shard in manifest.shards)
    console.print(
        f"{out}: {size / 1e6:,.1f} MB\ndigest {manifest.digest}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _fit(out: Path, benchmark: Benchmark) -> str:
    store = ShardStore.open(out)
    head = f"benchmark {benchmark.name}: "
    try:
        check_classes(benchmark, store.manifest, benchmark.tasks(0))
        counts = {
            split: len(split_sample_ids(benchmark, store.manifest, store.table, split))
            for split in _BENCHMARK_SPLITS
        }
    except BenchmarkError as error:
        return f"{head}does not fit: {error}"
    return f"{head}all {len(benchmark.leaf_classes):,} leaf classes are here; " + ", ".join(
        f"{split} {n:,}" for split, n in counts.items()
    )
