"""Benchmarks made from a taxonomy."""

import json
from collections.abc import Iterable
from typing import Any

from iirc_data.benchmarks.definition import Benchmark, Tasks
from iirc_data.benchmarks.files import parse_benchmark
from iirc_data.benchmarks.schedules import make_schedule
from iirc_data.benchmarks.settings import SamplingSettings
from iirc_data.errors import BenchmarkError
from iirc_data.spelling import with_known_spelling
from iirc_data.taxonomy import Taxonomy

_CLASSES_PER_TASK = 5


def make_benchmark(
    name: str,
    taxonomy: Taxonomy,
    schedules: list[Tasks],
    *,
    several_superclasses: bool = False,
    **settings: Any,
) -> Benchmark:
    """Make a benchmark of a taxonomy.

    Args:
        name: Name of the benchmark.
        taxonomy: The classes.
        schedules: See :class:`~iirc_data.benchmarks.definition.Benchmark`.
        several_superclasses: Whether a class may have several superclasses.
        **settings: Other fields of the benchmark, ``dataset`` at least.

    Raises:
        BenchmarkError: A field is invalid.
    """
    levels = taxonomy.levels
    content = {
        "name": name,
        "superclasses": {
            superclass: list(taxonomy.superclasses[superclass])
            for superclass in sorted(taxonomy.superclasses, key=levels.__getitem__)
        },
        "several_superclasses": several_superclasses
        and any(len(taxonomy.superclasses_of(name)) > 1 for name in levels),
        "other_classes": taxonomy.other_classes,
        "schedules": schedules,
        **settings,
    }
    return parse_benchmark(json.dumps(content), f"the benchmark {name!r}, made from a taxonomy")


def starting_benchmark(name: str, taxonomy: Taxonomy, classes: list[str]) -> Benchmark:
    """Make a benchmark to start from: superclasses first, then a few classes at a time.

    Args:
        name: Name of the benchmark and of the dataset.
        taxonomy: Superclasses. Classes that it leaves out have no superclass.
        classes: The dataset's leaf classes.

    Returns:
        A benchmark with one schedule; each task takes classes of different superclasses.

    Raises:
        BenchmarkError: The taxonomy names classes that the dataset lacks, or contradicts itself.
    """
    whole = with_classes(taxonomy, classes)
    n_tops = sum(level == 0 for level in map(whole.levels.get, whole.superclasses))
    task_size = min(_CLASSES_PER_TASK, len(whole.levels) - n_tops)
    schedule = make_schedule(whole, "superclasses-first", task_size=task_size)
    return make_benchmark(
        name,
        whole,
        [schedule],
        dataset=name,
        description="Made from a taxonomy: edit schedules, splits and sampling as you need.",
        transforms="imagenet",
    )


def with_classes(taxonomy: Taxonomy, classes: Iterable[str]) -> Taxonomy:
    """Return the taxonomy of a dataset: classes that it leaves out have no superclass.

    Raises:
        BenchmarkError: The taxonomy has leaf classes that the dataset lacks, or superclasses that
            are classes of the dataset.
    """
    known = list(classes)
    if missing := sorted(set(taxonomy.leaf_classes).difference(known)):
        raise BenchmarkError(
            f"the taxonomy names {len(missing)} classes that the dataset lacks: "
            f"{with_known_spelling(missing, known)}"
        )
    if both := [name for name in known if name in taxonomy.superclasses]:
        raise BenchmarkError(
            f"the taxonomy: {both[0]!r} is a superclass, expected leaf classes: the dataset has "
            "images of it"
        )
    leaves = set(taxonomy.leaf_classes).difference(taxonomy.other_classes)
    return Taxonomy(taxonomy.superclasses, [name for name in known if name not in leaves])


def one_level_per_sample(taxonomy: Taxonomy) -> SamplingSettings:
    """Return settings of sampling that show each sample at one level only.

    With K levels, each level shows 1 / K of the samples of a leaf class. A leaf class with fewer
    than the most levels shows the same fraction at each, and leaves samples out.
    """
    n_levels = max(taxonomy.ranks_of(leaf)[-1] + 1 for leaf in taxonomy.leaf_classes)
    return SamplingSettings(
        superclass_data_pct=1 / n_levels,
        subclass_data_pct=1 / n_levels,
        superclass_sampling_size_cap=len(taxonomy.leaf_classes),
    )
