"""The datasets of a benchmark: opened by name, and each with its part of the benchmark."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iirc_data.benchmarks import Benchmark
from iirc_data.definitions import PathLike
from iirc_data.errors import BenchmarkError
from iirc_data.shards.manifest import Manifest
from iirc_data.shards.sample_store import SampleStore
from iirc_data.shards.store import ShardStore
from iirc_data.shards.union import UnionStore
from iirc_data.spelling import with_known_spelling

_NAMED_PLACE = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)=(?P<place>.*)", re.DOTALL)


@dataclass(frozen=True)
class DatasetPart:
    """One dataset of a benchmark.

    Attributes:
        benchmark: The benchmark's part in it; its leaf classes are classes of the manifest.
        manifest: The dataset's manifest, under the name that the benchmark gives the dataset.
        leaf_of: Maps each class of the dataset that the benchmark uses to its leaf class in the
            whole benchmark.
    """

    benchmark: Benchmark
    manifest: Manifest
    leaf_of: Mapping[str, str]

    @property
    def has_own_names(self) -> bool:
        """Whether the whole benchmark calls the classes of the dataset as the dataset does."""
        return all(name == leaf for name, leaf in self.leaf_of.items())


def parts_of(benchmark: Benchmark, manifests: Mapping[str, Manifest]) -> list[DatasetPart]:
    """Return the datasets of a benchmark, in the order of the numbering of samples.

    Args:
        benchmark: The benchmark.
        manifests: Manifest of each dataset by name; a benchmark of one dataset accepts any name.

    Raises:
        BenchmarkError: The datasets are not those of the benchmark.
    """
    if not benchmark.datasets:
        check_datasets(benchmark, list(manifests) if len(manifests) > 1 else None)
        (manifest,) = manifests.values()
        return [DatasetPart(benchmark, manifest, {name: name for name in benchmark.leaf_classes})]
    check_datasets(benchmark, list(manifests))
    return [
        DatasetPart(
            benchmark.part(name),
            manifest.model_copy(update={"dataset": name}),
            {
                own: leaf
                for leaf in benchmark.leaf_classes
                for own in benchmark.classes_in(name, [leaf])
            },
        )
        for name, manifest in manifests.items()
    ]


def open_datasets(
    benchmark: Benchmark,
    data: PathLike | Mapping[str, PathLike],
    *,
    cache_size: int | str | None = None,
) -> SampleStore:
    """Open the data of a benchmark.

    Args:
        benchmark: The benchmark.
        data: Address of its dataset, or name to address of each of its ``datasets``.
        cache_size: See :meth:`ShardStore.open`.

    Raises:
        BenchmarkError: The names are not those of the benchmark's datasets.
        ShardError: A dataset cannot be opened.
    """
    places = data if isinstance(data, Mapping) else None
    check_datasets(benchmark, None if places is None else list(places))
    if places is None:
        assert not isinstance(data, Mapping)
        return ShardStore.open(data, cache_size=cache_size)
    in_order = {name: places[name] for name in benchmark.datasets}
    return UnionStore.open(in_order, cache_size=cache_size)


def check_datasets(benchmark: Benchmark, names: list[str] | None) -> None:
    """Check that data is given for the datasets of a benchmark, and for no others.

    Args:
        benchmark: The benchmark.
        names: Names of the datasets; None for one dataset without a name.

    Raises:
        BenchmarkError: The names differ from those of the benchmark.
    """
    wanted = list(benchmark.datasets)
    if names is None and wanted:
        example = " ".join(f"--data {name}=PATH" for name in wanted)
        benchmark.check_one_dataset(f"give the place of each by name, {example}")
    if names is None:
        return
    if not wanted:
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} draws from one dataset, and data is given by name for "
            f"{', '.join(names)}: give one place without a name, --data PATH"
        )
    if unknown := [name for name in names if name not in wanted]:
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} has no dataset {with_known_spelling(unknown, wanted)}: "
            f"its datasets are {', '.join(wanted)}"
        )
    if missing := [name for name in wanted if name not in names]:
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} draws from dataset {missing[0]!r}, for which no data is "
            f"given: add --data {missing[0]}=PATH"
        )


def by_dataset(places: Sequence[str]) -> str | dict[str, str]:
    """Read the places of datasets as a user types them.

    Args:
        places: One path or address; or ``NAME=PLACE`` for each of several datasets. An existing
            path, and ``./NAME=PLACE``, is one path.

    Returns:
        The path or address; or name to path or address.

    Raises:
        ValueError: Several are given and not all have a name, or two have the same.
    """
    found = [_NAMED_PLACE.fullmatch(place) if isinstance(place, str) else None for place in places]
    if len(places) == 1 and (found[0] is None or _exists(places[0])):
        return places[0]
    named = [(match["name"], match["place"]) for match in found if match is not None]
    if len(named) < max(len(places), 1):
        raise ValueError("expected one place, or NAME=PLACE for each of several datasets")
    if len(dict(named)) < len(named):
        raise ValueError("a dataset is named twice")
    return dict(named)


def _exists(place: str) -> bool:
    try:
        return Path(place).exists()
    except (OSError, ValueError):  # too long for a path, or contains NUL
        return False
