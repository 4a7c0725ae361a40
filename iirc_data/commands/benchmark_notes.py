"""What a made benchmark says of itself: description, command, origin, licence and digest."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from iirc_data.benchmarks import Benchmark, Tasks, content_digest
from iirc_data.commands.task_sizes import tasks_in_words
from iirc_data.commands.taxonomy_sources import TaxonomySource
from iirc_data.taxonomies.wordnet import WordNet
from iirc_data.taxonomy import Taxonomy

_NOT_RECORDED = {"output", "overwrite", "description", "origin", "license_note"}


def given_options(context: typer.Context) -> dict[str, str]:
    """Return the options and arguments that a command was given: parameter name to spelling."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    }


def command_text(context: typer.Context) -> str:
    """Return the command as a user would type it, with the names of files but not their folders.

    Options that do not change what the benchmark defines are left out.
    """
    given = given_options(context)
    words = ["iirc benchmarks make"]
    words += map(_word, context.params["sources"] or ())
    for name, option in given.items():
        if name not in _NOT_RECORDED and name != "sources":
            words += _option(option, context.params[name])
    return " ".join(words)


def _option(option: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield option
    else:
        for one in value if isinstance(value, list | tuple) else [value]:
            yield f"{option} {_word(one)}"


def _word(value: Any) -> str:
    text = str(value)
    return shlex.quote(Path(text).name if "/" in text and "," not in text else text)


def describe(benchmark: Benchmark, orders: Sequence[str], seeds: Sequence[int]) -> str:
    """Return one or two sentences: classes, tasks, schedules."""
    n_levels, n_leaves = benchmark.taxonomy.n_levels, len(benchmark.leaf_classes)
    levels = f" under {len(benchmark.superclasses)} superclasses, {n_levels} levels in all"
    text = f"{n_leaves:,} classes of {benchmark.dataset}{levels if n_levels > 1 else ''}. "
    n_seeds = len(seeds)
    parts = []
    for number, order in enumerate(orders):
        first = number * n_seeds
        which = f"{first} to {first + n_seeds - 1}" if n_seeds > 1 else f"{first}"
        parts.append(
            f"{'Schedules' if n_seeds > 1 else 'Schedule'} {which}: "
            + (f"{order}, " if n_levels > 1 else "")
            + f"{_sizes(benchmark.schedules[first : first + n_seeds])}."
        )
    return text + " ".join(parts)


def _sizes(schedules: Sequence[Tasks]) -> str:
    sizes = {tuple(map(len, tasks)) for tasks in schedules}
    if len(sizes) > 1:
        counts = sorted({len(tasks) for tasks in schedules})
        return f"{counts[0]} to {counts[-1]} tasks" if len(counts) > 1 else f"{counts[0]} tasks"
    return tasks_in_words(schedules[0])


def readable_names(
    taxonomy: Taxonomy, sources: Sequence[TaxonomySource], wordnet: WordNet | None
) -> dict[str, str]:
    """Return the readable names of classes, where they differ from the names."""
    if wordnet is not None:
        known = {wnid: wordnet.readable_name(wnid) for wnid in taxonomy.levels}
    else:
        known = {k: name for source in sources for k, name in source.readable_names.items()}
    names = {key: known.get(key, key) for key in taxonomy.levels}
    return {key: name for key, name in names.items() if name != key}


def attribution(
    benchmark: Benchmark,
    command: str,
    sources: Sequence[TaxonomySource],
    wordnet: WordNet | None,
    *,
    origin: str | None,
    note: str | None,
) -> str:
    """Return the origin of a benchmark, its licence note and the digest of its content."""
    origins = [source.origin for source in sources]
    licenses = [source.license_note for source in sources if source.license_note is not None]
    if wordnet is not None:
        origins.append(wordnet.version)
        licenses.append(wordnet.license_note)
    licence = note or "; ".join(dict.fromkeys(licenses)) or "not stated"
    parts = [] if origin is None else [origin]
    parts += [
        f"Made with `{command}` from {'; '.join(origins)}",
        f"Licence of the taxonomy: {licence}",
        f"Digest of the content: {content_digest(benchmark)}",
    ]
    return " ".join(f"{part.rstrip('.')}." for part in parts)
