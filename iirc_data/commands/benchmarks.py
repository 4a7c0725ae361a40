"""``iirc benchmarks``: list the benchmarks, or show one."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from iirc_data.augment import ImagePreset
from iirc_data.benchmarks import (
    Benchmark,
    SplitSettings,
    Tasks,
    benchmark_names,
    content_digest,
    load_benchmark,
)
from iirc_data.commands.task_sizes import task_sizes
from iirc_data.console import errors_in_one_line, plain_console
from iirc_data.definitions import IIRC_SETUP

app = typer.Typer(help="List the benchmarks, show one, or make one.")


@app.callback(invoke_without_command=True)
def list_benchmarks(context: typer.Context) -> None:
    """List the benchmarks that ship with the package, or show one."""
    if context.invoked_subcommand is not None:
        return
    # must fit into 80 columns
    table = Table(
        caption="classes, tasks: of one schedule; super, leaves: of the whole taxonomy; "
        "10+21x5: a first task of 10 classes, then 21 tasks of 5",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("name", no_wrap=True)
    for heading in ("classes", "super", "leaves", "schedules", "tasks"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("task sizes", no_wrap=True)
    group = None
    for benchmark in sorted(map(load_benchmark, benchmark_names()), key=_place):
        if (benchmark.setup, benchmark.dataset) != group:
            group = benchmark.setup, benchmark.dataset
            table.add_section()
            table.add_row(Text(f"{benchmark.setup}, {benchmark.dataset}", "bold"))
        tasks = benchmark.tasks()
        table.add_row(
            benchmark.name,
            f"{sum(map(len, tasks)):,}",
            f"{len(benchmark.superclasses):,}",
            f"{len(benchmark.leaf_classes):,}",
            f"{len(benchmark.schedules):,}",
            f"{len(tasks):,}",
            task_sizes(tasks),
        )
    plain_console().print(table)


@app.command()
def show(
    benchmark: Annotated[
        str, typer.Argument(help="Name of a benchmark, or path of your own JSON file.")
    ],
    schedule: Annotated[int, typer.Option(help="Number of the schedule.")] = 0,
) -> None:
    """Print a benchmark's settings, its taxonomy and one of its schedules."""
    with errors_in_one_line():
        loaded = load_benchmark(benchmark)
        tasks = loaded.tasks(schedule)
    console = plain_console()
    _print_settings(console, loaded)
    console.print(_taxonomy_table(loaded))
    console.print(_schedule_table(loaded, schedule, tasks))


def _place(benchmark: Benchmark) -> tuple[bool, str, list[tuple[bool, int, str]]]:
    """Return a key that sorts by setup, dataset and name, numbers in names by their value."""
    parts = re.split(r"(\d+)", benchmark.name)
    name = [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
    return benchmark.setup != IIRC_SETUP, benchmark.dataset, name


def _print_settings(console: Console, benchmark: Benchmark) -> None:
    console.print(Text.assemble((benchmark.name, "bold"), f"  setup {benchmark.setup}"))
    if benchmark.description:
        console.print(benchmark.description)
    splits, sampling = benchmark.splits, benchmark.sampling
    console.print(_validation(splits))
    if benchmark.setup == IIRC_SETUP:
        console.print(
            f"a superclass shows {_percents(sampling.superclass_data_pct)} of the images of each "
            "leaf class below it (less if there are more than "
            f"{sampling.superclass_sampling_size_cap}), a leaf class "
            f"{_percent(sampling.subclass_data_pct)} of its own"
        )
    if not benchmark.datasets:
        console.print(_image_preset(benchmark.transforms, benchmark.image_preset))
    for name, own in benchmark.datasets.items():
        n_classes = len(benchmark.classes_in(name, benchmark.leaf_classes))
        preset = _image_preset(
            own.transforms or benchmark.transforms, benchmark.image_presets[name]
        )
        console.print(
            Text.assemble((f"dataset {name}", "bold"), f": {n_classes:,} classes; ", preset)
        )
        if own.splits is not None:
            console.print(Text(f"dataset {name}: {_validation(own.splits)}"))
    for name, sources in benchmark.joined_classes.items():
        console.print(Text(f"class {name} joins {', '.join(sources)}"))
    console.print(f"digest of the content {content_digest(benchmark)}")
    if benchmark.attribution:
        console.print(benchmark.attribution, style="dim")


def _validation(splits: SplitSettings) -> str:
    return (
        f"in-task validation takes {_percent(splits.intask_valid_ratio)} of each class's training "
        f"images, post-task validation {_percent(splits.posttask_valid_ratio)}"
    )


def _image_preset(named: str | ImagePreset, preset: ImagePreset) -> Text:
    name = f" {named}" if isinstance(named, str) else ""
    content = json.dumps(preset.model_dump(mode="json", exclude_defaults=True))
    return Text(f"image preset{name}: {content}")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _percents(shares: float | list[float]) -> str:
    """Return the share of all levels, or those of each from the top."""
    if isinstance(shares, float):
        return _percent(shares)
    return f"{', '.join(map(_percent, shares))} (from the top level down)"


def _taxonomy_table(benchmark: Benchmark) -> Table:
    table = Table(title="Taxonomy", title_justify="left", expand=True)
    table.add_column("superclass")
    table.add_column("leaves", justify="right")
    table.add_column("subclasses", ratio=1)
    taxonomy = benchmark.taxonomy
    n_leaves = Counter(
        above for leaf in taxonomy.leaf_classes for above in taxonomy.ancestors_of(leaf)
    )
    for superclass, subclasses in benchmark.superclasses.items():
        table.add_row(
            Text(benchmark.readable_name(superclass), "bold"),
            f"{n_leaves[superclass]:,}",
            _names(benchmark, subclasses),
        )
    if benchmark.other_classes:
        table.add_row(
            Text("none", "dim"),
            f"{len(benchmark.other_classes):,}",
            _names(benchmark, benchmark.other_classes),
        )
    return table


def _schedule_table(benchmark: Benchmark, schedule: int, tasks: Tasks) -> Table:
    table = Table(
        title=f"Schedule {schedule} of 0 to {len(benchmark.schedules) - 1}: {len(tasks)} tasks, "
        f"{sum(map(len, tasks)):,} classes; superclasses are bold",
        title_justify="left",
        expand=True,
    )
    table.add_column("task", justify="right")
    table.add_column("classes", justify="right")
    table.add_column("introduces", ratio=1)
    for number, names in enumerate(tasks):
        table.add_row(str(number), f"{len(names):,}", _names(benchmark, names))
    return table


def _names(benchmark: Benchmark, class_names: Iterable[str]) -> Text:
    return Text(", ").join(
        Text(benchmark.readable_name(name), "bold" if name in benchmark.superclasses else "")
        for name in class_names
    )
