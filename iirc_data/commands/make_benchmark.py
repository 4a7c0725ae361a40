"""``iirc benchmarks make``: one benchmark file from a taxonomy of any depth."""

from collections.abc import Collection, Sequence
from pathlib import Path

import typer

from iirc_data.benchmarks import (
    Benchmark,
    SamplingSettings,
    benchmark_text,
    content_digest,
    make_benchmark,
    make_schedule,
)
from iirc_data.benchmarks.making import one_level_per_sample
from iirc_data.benchmarks.schedules import ORDERS
from iirc_data.commands import make_options as options
from iirc_data.commands.benchmark_notes import (
    attribution,
    command_text,
    describe,
    given_options,
    readable_names,
)
from iirc_data.commands.benchmark_taxonomy import Choice, chosen_taxonomy
from iirc_data.commands.empty_shares import classes_without_share
from iirc_data.commands.number_list import parse_numbers
from iirc_data.commands.shard.selection import read_class_list
from iirc_data.commands.taxonomy_sources import TaxonomySource, open_source
from iirc_data.console import errors_in_one_line, one_line, print_warning
from iirc_data.definitions import CIL_SETUP
from iirc_data.errors import BenchmarkError
from iirc_data.files import write_atomically
from iirc_data.reading import read_regular
from iirc_data.taxonomies.wordnet import WordNet, open_wordnet
from iirc_data.taxonomy import Taxonomy

_SAMPLING = {"superclass_data_pct", "subclass_data_pct", "superclass_sampling_size_cap"}


def make(
    context: typer.Context,
    output: options.Output,
    task_size: options.TaskSize,
    sources: options.Sources = None,
    order: options.Orders = None,
    seeds: options.Seeds = "0",
    first_task: options.FirstTask = None,
    setup: options.SetupOption = options.SetupName.IIRC,
    levels: options.Levels = None,
    levels_from: options.LevelsFrom = options.End.TOP,
    classes: options.Classes = None,
    superclasses: options.Superclasses = None,
    wordnet: options.WordNetPlace = None,
    several_superclasses: options.SeveralSuperclasses = False,
    superclass_data_pct: options.SuperclassDataPct = "0.4",
    subclass_data_pct: options.SubclassDataPct = 0.8,
    superclass_sampling_size_cap: options.Cap = 8,
    one_level: options.OneLevelPerSample = False,
    intask_valid_ratio: options.IntaskValidRatio = 0.1,
    posttask_valid_ratio: options.PosttaskValidRatio = 0.1,
    image_preset: options.ImagePresetName = None,
    name: options.Name = None,
    dataset: options.DatasetName = None,
    description: options.Description = None,
    origin: options.Origin = None,
    license_note: options.LicenseNote = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a benchmark from a taxonomy of any depth: schedules, splits and sampling."""
    with errors_in_one_line():
        _check_options(context, output, setup, levels, one_level=one_level)
        numbers = _seeds(seeds)
        nouns = None if wordnet is None else _wordnet(wordnet)
        opened = [
            open_source(path, several_superclasses=several_superclasses) for path in sources or ()
        ]
        choice = Choice(
            classes=_names(classes, "--classes"),
            superclasses=_names(superclasses, "--superclasses"),
            n_levels=levels,
            from_leaves=levels_from is options.End.LEAVES,
            several_superclasses=several_superclasses,
        )
        taxonomy = chosen_taxonomy(opened, nouns, choice)
        if setup == CIL_SETUP:
            taxonomy, sampling = Taxonomy({}, taxonomy.leaf_classes), SamplingSettings()
        elif not taxonomy.superclasses:
            raise BenchmarkError("no class has a superclass: give a taxonomy, or --setup CIL")
        elif one_level:
            sampling = one_level_per_sample(taxonomy)
        else:
            sampling = _sampling(
                superclass_data_pct, subclass_data_pct, superclass_sampling_size_cap
            )
        chosen = order or [options.OrderName.SUPERCLASSES_FIRST]
        orders = [known for kind in chosen for known in ORDERS if known == kind]
        schedules = [
            make_schedule(taxonomy, kind, task_size=task_size, first_task=first_task, seed=seed)
            for kind in orders
            for seed in numbers
        ]
        datasets = [source.dataset for source in sorted(opened, key=lambda s: s.classes is None)]
        presets = [source.transforms for source in opened if source.transforms is not None]
        benchmark = make_benchmark(
            name or output.stem,
            taxonomy,
            schedules,
            several_superclasses=several_superclasses,
            dataset=dataset or next(iter(datasets), output.stem),
            setup=setup.value,
            transforms=image_preset or next(iter(presets), "imagenet"),
            readable_names=readable_names(taxonomy, opened, nouns),
            splits={
                "intask_valid_ratio": intask_valid_ratio,
                "posttask_valid_ratio": posttask_valid_ratio,
            },
            sampling=sampling.model_dump(),
        )
        about = description or describe(benchmark, orders, numbers)
        note = attribution(
            benchmark, command_text(context), opened, nouns, origin=origin, note=license_note
        )
        benchmark = benchmark.model_copy(update={"attribution": note, "description": about})
        _write(output, benchmark_text(benchmark), overwrite=overwrite)
    typer.echo(one_line(f"{output}: {about}"))
    typer.echo(f"digest {content_digest(benchmark)}")
    _warn_of_empty_shares(benchmark, opened)


def _check_options(
    context: typer.Context,
    output: Path,
    setup: options.SetupName,
    levels: int | None,
    *,
    one_level: bool,
) -> None:
    """Check the name of the file, and that no option that was given contradicts another."""
    if output.suffix != ".json":
        raise BenchmarkError(f"--output {output}: expected a file name that ends in .json")
    if setup == CIL_SETUP:
        _refuse(context, {*_SAMPLING, "order", "one_level"}, "needs --setup IIRC")
    if one_level:
        _refuse(context, _SAMPLING, "contradicts --one-level-per-sample")
    if levels is None:
        _refuse(context, {"levels_from"}, "needs --levels")


def _refuse(context: typer.Context, names: Collection[str], problem: str) -> None:
    for name, option in given_options(context).items():
        if name in names:
            raise BenchmarkError(f"{option} {problem}")


def _seeds(text: str) -> list[int]:
    try:
        return parse_numbers(text)
    except ValueError as error:
        raise BenchmarkError(f"--seeds {text!r}: expected numbers such as 0-4,7") from error


def _names(text: str | None, option: str) -> list[str] | None:
    return None if text is None else read_class_list(text, option)


def _wordnet(place: str) -> WordNet:
    return open_wordnet(None if place == options.AUTO else Path(place))


def _sampling(superclass_data_pct: str, subclass_data_pct: float, cap: int) -> SamplingSettings:
    try:
        fractions = [float(part) for part in superclass_data_pct.split(",")]
        return SamplingSettings(
            superclass_data_pct=fractions if len(fractions) > 1 else fractions[0],
            subclass_data_pct=subclass_data_pct,
            superclass_sampling_size_cap=cap,
        )
    except ValueError as error:
        raise BenchmarkError(
            f"--superclass-data-pct {superclass_data_pct!r}: expected fractions from 0 to 1, such "
            "as 0.4 or 0.3,0.5"
        ) from error


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    if path.exists() and not overwrite and read_regular(path) != text.encode():
        raise BenchmarkError(
            f"{path} exists and has other content: choose another file, or pass --overwrite"
        )
    with write_atomically(path) as file:
        file.write(text.encode())


def _warn_of_empty_shares(benchmark: Benchmark, sources: Sequence[TaxonomySource]) -> None:
    n_images = {name: n for source in sources for name, n in source.n_images.items()}
    if n_images and (empty := classes_without_share(benchmark, n_images)):
        print_warning(
            f"{len(empty)} classes would show no training image, for example {empty[0]}: "
            "raise --superclass-sampling-size-cap or the fractions"
        )
