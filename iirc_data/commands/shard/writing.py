"""Writing shards from the command line: progress, interruptions, and errors in one line."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from iirc_data.cluster import cluster_executor
from iirc_data.commands.shard.options import MAX_SHARD_SIZE
from iirc_data.console import errors_in_one_line, plain_console, shown, typed_command
from iirc_data.files import write_json
from iirc_data.interrupts import interrupted_in_one_line
from iirc_data.shards import Manifest, write_shards
from iirc_data.shards.class_writer import ShardedClass, writing
from iirc_data.shards.dali_index import write_dali_index
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME
from iirc_data.shards.preconditions import check_before_writing
from iirc_data.shards.writer import Job
from iirc_data.sources import Source
from iirc_data.taxonomies.reduction import restricted
from iirc_data.taxonomy import Taxonomy


@dataclass(frozen=True)
class WriteOptions:
    """How shards are written; see :mod:`iirc_data.commands.shard.options`.

    Attributes:
        workers: Number of processes.
        scheduler: Address of a dask.distributed scheduler; None to write on this machine.
        max_shard_size: Bytes of image data after which a class continues in another tar.
        check_decode: Decode every image fully.
        dali_index: Also write ``.idx`` files.
    """

    workers: int = 1
    scheduler: str | None = None
    max_shard_size: int = MAX_SHARD_SIZE
    check_decode: bool = False
    dali_index: bool = False


@contextmanager
def resumable_in_one_line() -> Iterator[None]:
    """Report errors, and how to resume after an interruption, in one line; then exit."""
    what_to_do = f"finished classes are kept; to resume, run again: {typed_command()}"
    with interrupted_in_one_line(what_to_do), errors_in_one_line():
        yield


def write(
    source: Source,
    out: Path,
    options: WriteOptions,
    taxonomy: Mapping[str, Sequence[str]] | None = None,
) -> Manifest:
    """Write shards; show progress, images and bytes per second, and the time left.

    Args:
        source: The dataset to write.
        out: Shard folder.
        options: How to write.
        taxonomy: Superclasses and their direct subclasses. The part above the classes of ``source``
            is written to ``taxonomy.json``, before the first shard.

    Returns:
        The manifest.

    Raises:
        SourceError: See :func:`~iirc_data.shards.write_shards`.
        ShardError: See :func:`~iirc_data.shards.write_shards`.
        ClusterError: See :func:`~iirc_data.cluster.cluster_executor`.
    """
    check_before_writing(source, out)
    if options.check_decode:
        # imported only when needed: importing torch takes seconds
        from iirc_data.loader.checked_source import CheckedSource

        source = CheckedSource(source)
    weights = {
        Job(split, name): source.weight(split, name)
        for split, names in source.classes().items()
        for name in names
    }
    if taxonomy is not None and not (out / MANIFEST_NAME).exists():
        with writing(out / TAXONOMY_NAME):
            leaves = set(chain.from_iterable(source.classes().values()))
            part = restricted(Taxonomy(taxonomy), leaves, taxonomy)
            write_json(out / TAXONOMY_NAME, part.superclasses)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    speed = _Speed()
    console = plain_console(stderr=True)
    with (
        shown(Progress(*columns, console=console)) as display,
        cluster_executor(options.scheduler, partial(console.print, soft_wrap=True)) as executor,
    ):
        task = display.add_task("sharding", total=sum(weights.values()), speed="")

        def advance(job: Job, result: ShardedClass) -> None:
            speed.add(result)
            display.update(task, advance=weights[job], speed=str(speed))

        manifest = write_shards(
            source,
            out,
            workers=options.workers,
            executor=executor,
            max_shard_size=options.max_shard_size,
            progress=advance,
        )
    if options.dali_index:
        write_dali_index(out, manifest)
    return manifest


class _Speed:
    """Images and bytes per second of this run; classes kept from an earlier run do not count."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._images = self._bytes = self._kept = 0

    def add(self, result: ShardedClass) -> None:
        """Count a finished class."""
        if result.is_kept:
            self._kept += 1
        else:
            self._images += len(result.rows)
            self._bytes += result.bytes

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        kept = f" · {self._kept:,} classes kept" if self._kept else ""
        return (
            f"{self._images:,} images · {self._images / seconds:,.0f} images/s · "
            f"{self._bytes / seconds / 1e6:,.1f} MB/s{kept}"
        )
