"""The summary that a command prints: what it wrote, and how that compares to expectations."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from iirc_data.benchmarks import Benchmark
from iirc_data.console import one_line, plain_console
from iirc_data.dataset_checks import check_classes, classes_without_images
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError
from iirc_data.shards import Manifest, ShardStore
from iirc_data.shards.manifest import TAXONOMY_NAME
from iirc_data.spelling import with_known_spelling
from iirc_data.splits import TEST_FOLDERS, TRAINING_FOLDER, split_sample_ids

_BENCHMARK_SPLITS: tuple[SplitName, ...] = (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)


def summarise(
    out: Path,
    manifest: Manifest,
    *,
    expected: Mapping[str, int] | None = None,
    benchmark: Benchmark | None = None,
) -> None:
    """Print a table of the splits, warnings, the taxonomy's path, the size and the digest.

    Args:
        out: The shard folder.
        manifest: Its manifest.
        expected: Expected number of images per split, for splits where it is known.
        benchmark: A benchmark to compare the dataset with.
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
    console = plain_console()
    console.print(table)
    size = sum(shard.bytes for shard in manifest.shards)
    lines = [f"warning: {gap}" for gap in gaps(manifest)]
    lines += [_fit(out, benchmark)] if benchmark is not None else []
    if (out / TAXONOMY_NAME).is_file():
        lines.append(f"taxonomy {out / TAXONOMY_NAME}")
    for line in (*lines, f"{out}: {size / 1e6:,.1f} MB", f"digest {manifest.digest}"):
        console.print(one_line(line), soft_wrap=True)


def gaps(manifest: Manifest) -> list[str]:
    """Return what a dataset lacks for training and testing every class, one sentence each."""
    found = []
    folders = {"training": (TRAINING_FOLDER,), "testing": TEST_FOLDERS}
    for purpose, names in folders.items():
        if manifest.splits.keys().isdisjoint(names):
            found.append(
                f"{purpose} reads the split {' or '.join(names)}; the dataset has "
                f"{', '.join(manifest.splits)}"
            )
    for split, shards in manifest.splits.items():
        there = {shard.class_name for shard in shards}
        if missing := [name for name in manifest.classes if name not in there]:
            found.append(
                f"split {split} has no image of {len(missing)} of {len(manifest.classes)} "
                f"classes: {with_known_spelling(missing, there, most=20)}"
            )
    return found


def _fit(out: Path, benchmark: Benchmark) -> str:
    store = ShardStore.open(out)
    head = f"benchmark {benchmark.name}: "
    try:
        tasks = benchmark.tasks(0)
        check_classes(benchmark, store.manifest, tasks)
        counts = {
            split: len(split_sample_ids(benchmark, store.manifest, store.table, split))
            for split in _BENCHMARK_SPLITS
        }
        lacking = [
            f"no {split} image of {with_known_spelling(names, store.manifest.classes)}"
            for split in (TRAIN, TEST)
            if (names := classes_without_images(benchmark, store.manifest, tasks, split))
        ]
    except BenchmarkError as error:
        return f"{head}does not fit: {error}"
    fit = f"all {len(benchmark.leaf_classes):,} leaf classes are here"
    return f"{head}{'; '.join(lacking) or fit}; " + ", ".join(
        f"{split} {n:,}" for split, n in counts.items()
    )
