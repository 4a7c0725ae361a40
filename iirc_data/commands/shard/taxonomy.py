"""A taxonomy file, and the benchmark to start from that it gives."""

from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from iirc_data.benchmarks import Benchmark, parse_benchmark, parse_json
from iirc_data.errors import BenchmarkError
from iirc_data.files import canonical_json
from iirc_data.reading import read_text
from iirc_data.spelling import with_known_spelling

Taxonomy: TypeAlias = dict[str, list[str]]
"""Superclass to its subclasses."""

_CLASSES_PER_TASK = 5


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a JSON file ``{superclass: [subclasses]}``.

    Raises:
        BenchmarkError: The file cannot be read, or its content is not a taxonomy.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BenchmarkError(f"cannot read taxonomy {path}: {reason}") from error
    try:
        content = parse_json(text, str(path))
        return TypeAdapter(Taxonomy).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise BenchmarkError(
            f"{path} is not a taxonomy {{superclass: [subclasses]}}: {field}: {first['msg']}"
        ) from error


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
    subclasses = set(chain.from_iterable(taxonomy.values()))
    if missing := sorted(subclasses - set(classes)):
        raise BenchmarkError(
            f"the taxonomy names {len(missing)} classes that the dataset lacks: "
            f"{with_known_spelling(missing, classes)}"
        )
    others = [name for name in classes if name not in subclasses]
    in_turn = chain.from_iterable(zip_longest(*taxonomy.values(), others))
    leaves = [leaf for leaf in in_turn if leaf is not None]
    tasks = [
        leaves[first : first + _CLASSES_PER_TASK]
        for first in range(0, len(leaves), _CLASSES_PER_TASK)
    ]
    content = {
        "name": name,
        "dataset": name,
        "description": "Made from a taxonomy: edit schedules, splits and sampling as you need.",
        "superclasses": taxonomy,
        "other_classes": others,
        "transforms": "imagenet",
        "schedules": [[list(taxonomy), *tasks] if taxonomy else tasks],
    }
    return parse_benchmark(canonical_json(content), "the benchmark made from the taxonomy")
