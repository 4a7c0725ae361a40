"""``iirc data``: inspect, verify, copy and compare sharded datasets."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.number_list import parse_numbers
from iirc_data.console import errors_in_one_line, one_line, plain_console, shown
from iirc_data.dataset_checks import needed_classes
from iirc_data.datasets import by_dataset, open_datasets
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import BenchmarkError, ShardError
from iirc_data.masking import masked
from iirc_data.shards.addresses import local_path
from iirc_data.shards.card import Card
from iirc_data.shards.manifest import Manifest, Shard
from iirc_data.shards.parallel import TotalProgress
from iirc_data.shards.partial_copy import absent_in_words, absent_shards
from iirc_data.shards.remote import RemoteDataset
from iirc_data.shards.sharing import DEFAULT_WORKERS, publish, pull
from iirc_data.shards.verify import verify
from iirc_data.splits import TEST_FOLDERS
from iirc_data.task_sequence import TaskSequence

app = typer.Typer(
    help="Make, inspect, verify, copy and compare sharded datasets.", no_args_is_help=True
)

SPLITS: tuple[SplitName, ...] = (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)

Address = Annotated[
    str,
    typer.Argument(
        help="Shard folder, or its URL (https://, s3://, …); @sha256:DIGEST pins the digest."
    ),
]
Root = Annotated[Path, typer.Argument(help="Local shard folder.")]
Workers = Annotated[int, typer.Option(min=1, help="Number of files to copy at the same time.")]
Schedule = Annotated[int, typer.Option(min=0, help="Number of the benchmark's schedule.")]


@app.command("info")
def show_info(address: Address) -> None:
    """Show the splits, classes, sizes and digest of a dataset."""
    with errors_in_one_line():
        manifest = RemoteDataset.open(address).manifest
        table = Table("split", "classes", "samples", "shards", "size", box=None)
        for split, shards in manifest.splits.items():
            n_classes = len({shard.class_name for shard in shards})
            n_samples = sum(shard.samples for shard in shards)
            table.add_row(
                split, f"{n_classes:,}", f"{n_samples:,}", f"{len(shards):,}", _size(shards)
            )
        typer.echo(f"dataset  {manifest.dataset}")
        typer.echo(f"formats  {', '.join(manifest.image_formats)}")
        typer.echo(f"classes  {len(manifest.classes):,}")
        typer.echo(f"digest   {manifest.digest}")
        plain_console().print(table)
        if (root := local_path(address)) is not None:
            _echo_absent(absent_shards(root, manifest), manifest)


@app.command("verify")
def verify_folder(
    root: Root,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of threads; by default a few more than processors."),
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="Fail if shards are missing, as they are in partial copies."
        ),
    ] = False,
) -> None:
    """Verify every digest and every row of the sample table of a local dataset.

    Missing shards are listed; they are an error only with --complete.
    """
    with errors_in_one_line():
        with progress_bar("verify") as progress:
            found = verify(root, workers=workers, progress=progress)
        for problem in found.problems:
            typer.echo(one_line(problem))
        manifest = found.manifest
        absent = [shard for shard in manifest.shards if shard.path in set(found.absent)]
        if found.problems:
            _echo_absent(absent, manifest)
            files = f"{len(found.problems)} problems: copy those files again"
            if len(found.problems) == 1:
                files = "1 problem: copy that file again"
            raise ShardError(f"{root} has {files}")
        n_checked = len(manifest.shards) - len(absent)
        typer.echo(one_line(f"{root}: {n_checked} shards match the manifest"))
        typer.echo(f"digest {manifest.digest}")
        if absent and complete:
            raise ShardError(
                f"{root} lacks {absent_in_words(absent, manifest)}; fetch them with: "
                f"iirc data pull ADDRESS {quote(str(root))}"
            )
        _echo_absent(absent, manifest)


@app.command("publish")
def publish_dataset(
    root: Root,
    address: Annotated[str, typer.Argument(help="Folder or URL to copy to (s3://, …).")],
    new_version: Annotated[
        bool, typer.Option(help="Publish beside the versions there, sharing equal shards.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Licence of the images, for the page: an SPDX identifier."),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Show the taxonomy of this benchmark (name or file).")
    ] = None,
    page_address: Annotated[
        str | None,
        typer.Option(
            "--page-address",
            help="Where readers find the dataset, for the page: the URL of the web server.",
        ),
    ] = None,
    workers: Workers = DEFAULT_WORKERS,
) -> None:
    """Copy a dataset to an address from which others can pull it; run again to resume.

    A page that describes it, README.md and index.html, is written beside it.
    """
    with errors_in_one_line():
        card = Card(licence, None if benchmark is None else load_benchmark(benchmark), page_address)
        before = RemoteDataset.open(root).manifest.digest
        with progress_bar("publish") as progress:
            manifest = publish(
                root,
                address,
                new_version=new_version,
                card=card,
                workers=workers,
                progress=progress,
            )
        if manifest.digest != before:
            typer.echo(one_line(f"{root}: shards were renamed; before, the digest was {before}"))
        shards = f"{len(manifest.shards)} shards, {_size(manifest.shards)}"
        typer.echo(one_line(f"{address}: {shards}"))
        typer.echo(f"digest {manifest.digest}")


@app.command("pull")
def pull_dataset(
    address: Address,
    out: Annotated[Path, typer.Argument(help="Local folder to copy to.")],
    benchmark: Annotated[
        str | None, typer.Option(help="Copy only the classes of this benchmark (name or file).")
    ] = None,
    schedule: Schedule = 0,
    tasks: Annotated[
        str | None, typer.Option(help="Copy only what these tasks need, for example 0-3,5.")
    ] = None,
    update: Annotated[
        bool, typer.Option(help="Replace another version of the dataset in the folder.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="Which dataset of the benchmark this is, if it draws from several."),
    ] = None,
    workers: Workers = DEFAULT_WORKERS,
) -> None:
    """Copy a dataset, or the part that some tasks need; run again to resume or to add tasks."""
    with errors_in_one_line():
        classes = _classes_to_pull(benchmark, schedule, tasks, dataset)
        with progress_bar("pull") as progress:
            manifest = pull(
                address, out, classes=classes, update=update, workers=workers, progress=progress
            )
        copied = [s for s in manifest.shards if classes is None or s.class_name in classes]
        n_shards = f"{len(copied)} shards"
        if len(copied) < len(manifest.shards):
            n_shards = f"{len(copied)} of {len(manifest.shards)} shards"
        typer.echo(one_line(f"{out}: {n_shards}, {_size(copied)}"))
        typer.echo(f"digest {manifest.digest}")
        _echo_absent(absent_shards(out, manifest), manifest)


@app.command("digest")
def show_digests(
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="ADDRESS...",
            help="Shard folder or its URL; NAME=ADDRESS for each of several datasets.",
        ),
    ],
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")],
    schedule: Schedule = 0,
) -> None:
    """Print the digests that show whether two labs train on the same samples.

    One digest identifies the dataset, or each of several and then all together; one per task and
    split identifies the samples and their labels, with incomplete information for training and
    in-task validation, and complete information for post-task validation and test.
    """
    with errors_in_one_line():
        definition = load_benchmark(benchmark)
        store = open_datasets(definition, _places(addresses))
        for name, part in store.datasets.items() if definition.datasets else ():
            typer.echo(f"dataset {name} {part.digest}")
        typer.echo(f"dataset {store.digest}")
        has_test = all(
            not part.manifest.splits.keys().isdisjoint(TEST_FOLDERS)
            for part in store.datasets.values()
        )
        for split in SPLITS if has_test else SPLITS[:-1]:
            sequence = TaskSequence.from_store(definition, store, split, schedule=schedule)
            for task in range(len(sequence)):
                view = sequence.view(task)
                typer.echo(f"{split} task {task} samples {len(view)} {view.digest()}")


def _places(addresses: list[str]) -> str | dict[str, str]:
    try:
        return by_dataset(addresses)
    except ValueError as error:
        raise BenchmarkError(f"{', '.join(map(masked, addresses))}: {error}") from error


def parse_task_ids(text: str) -> list[int]:
    """Parse task numbers such as ``0-3,5``.

    Raises:
        BenchmarkError: The text is not a list of task numbers and ranges.
    """
    try:
        return parse_numbers(text)
    except ValueError as error:
        raise BenchmarkError(
            f"{text!r} does not name tasks: expected numbers such as 0-3,5"
        ) from error


def _classes_to_pull(
    benchmark: str | None, schedule: int, tasks: str | None, dataset: str | None
) -> set[str] | None:
    if benchmark is None:
        for option, value in (("--tasks", tasks), ("--dataset", dataset)):
            if value is not None:
                raise BenchmarkError(f"{option} needs --benchmark, which defines the tasks")
        return None
    definition = load_benchmark(benchmark)
    if dataset is None:
        definition.check_one_dataset("say which of them this is with --dataset NAME")
    elif dataset not in definition.datasets:
        known = ", ".join(definition.datasets) or "one only, so leave out --dataset"
        raise BenchmarkError(
            f"benchmark {definition.name!r} has no dataset {dataset!r}; it has {known}"
        )
    scheduled = definition.tasks(schedule)
    task_ids = range(len(scheduled)) if tasks is None else parse_task_ids(tasks)
    if max(task_ids) >= len(scheduled):
        raise BenchmarkError(
            f"schedule {schedule} of benchmark {definition.name!r} has the tasks 0 to "
            f"{len(scheduled) - 1}, got {tasks!r}"
        )
    needed = needed_classes(definition, [scheduled[task] for task in task_ids])
    return needed if dataset is None else set(definition.classes_in(dataset, needed))


def _echo_absent(absent: Sequence[Shard], manifest: Manifest) -> None:
    if absent:
        typer.echo(one_line(f"partial copy, which lacks {absent_in_words(absent, manifest)}"))


def _size(shards: Iterable[Shard]) -> str:
    return decimal(sum(shard.bytes for shard in shards))


@contextmanager
def progress_bar(description: str) -> Iterator[TotalProgress]:
    """Show a bar of transferred bytes inside the block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with shown(Progress(*columns, console=plain_console(stderr=True))) as display:
        bar = display.add_task(description, total=None)
        yield lambda done, total: display.update(bar, completed=done, total=total)
