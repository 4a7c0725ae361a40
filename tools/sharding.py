"""What the tools that write shards share: options, progress, and errors of one line."""

import reprlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from iirc_data.benchmarks import Benchmark
from iirc_data.cluster import cluster_executor
from iirc_data.console import errors_in_one_line, plain_console
from iirc_data.errors import SourceError
from iirc_data.interrupts import interrupted_in_one_line
from iirc_data.reading import read_text
from iirc_data.shards import Manifest, write_shards
from iirc_data.shards.class_writer import DEFAULT_MAX_SHARD_SIZE, ShardedClass
from iirc_data.shards.dali_index import write_dali_index
from iirc_data.shards.preconditions import check_before_writing
from iirc_data.shards.writer import Job
from iirc_data.sources import ClassSubset, ReencodedSource, Source
from iirc_data.sources.derived import DEFAULT_QUALITY

Out: TypeAlias = Annotated[Path, typer.Argument(resolve_path=True, help="Shard folder to write.")]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Take only these classes: a file with one a line, or a list with commas."),
]
BenchmarkName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--benchmark",
        help="Take only the classes of this benchmark (a name, or a .json file), and compare "
        "with what it expects.",
    ),
]
Resize: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Shrink the shorter side to this many pixels; re-encodes as JPEG."),
]
Quality: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, max=100, help=f"JPEG quality; re-encodes. [default with --resize: {DEFAULT_QUALITY}]"
    ),
]
Workers: TypeAlias = Annotated[
    int, typer.Option(min=1, max=1024, help="Processes that write classes side by side.")
]
Scheduler: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Write the classes on the dask.distributed cluster with this scheduler, for example "
        "tcp://host:8786; its workers must see the same files."
    ),
]
MaxShardSize: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Bytes of images after which a class gets a further tar.")
]
CheckDecode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--check-decode",
        help="Decode every image fully, with Pillow and with DALI where it is installed, to find "
        "damaged ones.",
    ),
]
DaliIndex: TypeAlias = Annotated[
    bool,
    typer.Option("--dali-index", help="Write .idx files for DALI's own webdataset reader too."),
]
MAX_SHARD_SIZE = DEFAULT_MAX_SHARD_SIZE


def select(
    source: Source,
    *,
    classes: str | None,
    benchmark: Benchmark | None,
    resize: int | None = None,
    quality: int | None = None,
) -> Source:
    """Return what a command's options leave of a dataset.

    Args:
        source: The whole dataset.
        classes: See :data:`Classes`.
        benchmark: Take only its classes.
        resize: See :data:`Resize`.
        quality: See :data:`Quality`.

    Raises:
        SourceError: The dataset lacks chosen classes.
    """
    for names in chosen_classes(classes, benchmark):
        source = ClassSubset.of(source, names)
    if resize is not None or quality is not None:
        source = ReencodedSource(source, resize, quality or DEFAULT_QUALITY)
    return source


def chosen_classes(classes: str | None, benchmark: Benchmark | None) -> list[frozenset[str]]:
    """Return the sets of classes that options choose; the dataset must have all, each is taken.

    Args:
        classes: See :data:`Classes`.
        benchmark: Take only its classes.

    Raises:
        SourceError: See :func:`read_class_list`.
    """
    chosen = [] if benchmark is None else [frozenset(benchmark.leaf_classes)]
    if classes is not None:
        chosen.append(frozenset(read_class_list(classes)))
    return chosen


def read_class_list(text: str) -> list[str]:
    """Return the class names of a file with one a line, or of a list with commas.

    Raises:
        SourceError: No class is named, or the file cannot be read.
    """
    names = _lines(text) if _names_a_file(text) else text.split(",")
    found = [name.strip() for name in names if name.strip()]
    if not found:
        raise SourceError(f"--classes {reprlib.repr(text)} names no class")
    return found


def _names_a_file(text: str) -> bool:
    """Tell whether a text means a file; a folder may be called like a class."""
    if "/" in text and "," not in text:  # no class is named so: what is wrong with the file is said
        return True
    try:
        return not Path(text).is_dir() and Path(text).exists()
    except (OSError, ValueError):  # no path is so long, or has a NUL
        return False


def _lines(path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"cannot read the list of classes {path}: {reason}") from error


@dataclass(frozen=True)
class Options:
    """How shards are written.

    Attributes:
        workers: See :data:`Workers`.
        scheduler: See :data:`Scheduler`.
        max_shard_size: See :data:`MaxShardSize`.
        check_decode: See :data:`CheckDecode`.
        dali_index: See :data:`DaliIndex`.
    """

    workers: int = 1
    scheduler: str | None = None
    max_shard_size: int = MAX_SHARD_SIZE
    check_decode: bool = False
    dali_index: bool = False


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Print this project's errors, and what to do after an interruption; then exit."""
    what_to_do = "run the same command again to go on; finished classes are kept"
    with interrupted_in_one_line(what_to_do), errors_in_one_line():
        yield


def write(source: Source, out: Path, options: Options) -> Manifest:
    """Write shards, showing images and bytes per second and the time that is left.

    Args:
        source: What to write.
        out: Shard folder.
        options: How.

    Returns:
        The manifest.

    Raises:
        SourceError: See :func:`~iirc_data.shards.write_shards`.
        ShardError: Likewise; or there is no such dask cluster.
    """
    check_before_writing(source, out)
    if options.check_decode:
        # imported only where it is needed: torch takes seconds
        from iirc_data.loader.checked_source import CheckedSource

        source = CheckedSource(source)
    weights = {
        Job(split, name): source.weight(split, name)
        for split, names in source.classes().items()
        for name in names
    }
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    speed = _Speed()
    with (
        Progress(*columns, console=plain_console(stderr=True)) as display,
        cluster_executor(options.scheduler) as executor,
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
    """Images and bytes per second, of what this run writes."""

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
