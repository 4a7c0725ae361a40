"""What ``iirc benchmarks make`` reads: taxonomies, shard folders and other benchmarks."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iirc_data.benchmarks import Benchmark, content_digest, load_benchmark, parse_json
from iirc_data.errors import BenchmarkError
from iirc_data.reading import read_regular
from iirc_data.shards import ShardStore
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME
from iirc_data.splits import TRAINING_FOLDER
from iirc_data.taxonomies.folder_tree import read_folder_tree
from iirc_data.taxonomies.json_file import read_taxonomy, read_taxonomy_text
from iirc_data.taxonomies.reduction import merged
from iirc_data.taxonomies.table import read_table
from iirc_data.taxonomy import Taxonomy

_PRESETS_BY_SIDE = {32: "cifar", 64: "tiny_imagenet"}  # pixels


@dataclass(frozen=True)
class TaxonomySource:
    """One of the sources of a benchmark.

    Attributes:
        taxonomy: Its classes and superclasses.
        origin: A text that says what it is, with the digest of its content.
        dataset: Name of the dataset.
        classes: The classes of the dataset, if the source knows them.
        n_images: Number of training images of each class, if the source knows them.
        transforms: Name of the image preset that fits the images, if the source knows it.
        readable_names: Readable names of classes.
        license_note: What is known of its licence.
    """

    taxonomy: Taxonomy
    origin: str
    dataset: str
    classes: Sequence[str] | None = None
    n_images: Mapping[str, int] = field(default_factory=dict)
    transforms: str | None = None
    readable_names: Mapping[str, str] = field(default_factory=dict)
    license_note: str | None = None


def open_source(path: Path, *, several_superclasses: bool = False) -> TaxonomySource:
    """Open a source.

    Args:
        path: A shard folder or its ``manifest.json``, a folder of folders, a table (``.csv``,
            ``.tsv``), a JSON file ``{superclass: [subclasses]}``, or a benchmark, by its path or
            name.
        several_superclasses: Whether a class may have several superclasses.

    Raises:
        BenchmarkError: It does not exist, or is not a valid taxonomy.
        ShardError: It is not a valid shard folder.
    """
    if path.name == MANIFEST_NAME:
        return _shard_folder(path.parent)
    if path.is_dir():
        if (path / MANIFEST_NAME).exists():
            return _shard_folder(path)
        found = read_folder_tree(path, several_superclasses=several_superclasses)
        name = path.resolve().name
        return TaxonomySource(found, f"the folders in {name}", name)
    if path.suffix in (".csv", ".tsv"):
        found = read_table(path, several_superclasses=several_superclasses)
        return TaxonomySource(found, _file(path), path.stem)
    if path.suffix == ".json" and not _is_benchmark(path):
        return TaxonomySource(read_taxonomy(path), _file(path), path.stem)
    if path.suffix == ".json":
        return _benchmark(load_benchmark(path))
    if not path.suffix and not path.exists():
        return _benchmark(_benchmark_by_name(path))
    raise BenchmarkError(
        f"{path}: expected a shard folder, a folder of folders, a .csv, .tsv or .json file, or the "
        "name of a benchmark"
    )


def _benchmark_by_name(name: Path) -> Benchmark:
    try:
        return load_benchmark(name)
    except BenchmarkError as error:  # more often a mistyped folder than a mistyped name
        raise BenchmarkError(f"there is no folder {name}, and {error}") from error


def _is_benchmark(path: Path) -> bool:
    content = parse_json(read_taxonomy_text(path), str(path))
    return isinstance(content, dict) and isinstance(content.get("name"), str)


def _benchmark(benchmark: Benchmark) -> TaxonomySource:
    benchmark.check_one_dataset("expected a benchmark of one dataset")
    digest = content_digest(benchmark)
    about = f'; its attribution: "{benchmark.attribution}"' if benchmark.attribution else ""
    return TaxonomySource(
        benchmark.taxonomy,
        f"the benchmark {benchmark.name} (digest {digest}{about})",
        benchmark.dataset,
        license_note=f"that of {benchmark.name}",
        transforms=benchmark.transforms if isinstance(benchmark.transforms, str) else None,
        readable_names=benchmark.readable_names,
    )


def _shard_folder(folder: Path) -> TaxonomySource:
    store = ShardStore.open(folder)
    manifest = store.manifest
    origin = f"the dataset {manifest.dataset} (digest {manifest.digest})"
    taxonomy = Taxonomy({}, manifest.classes)
    if (beside := folder / TAXONOMY_NAME).exists():
        taxonomy = merged([taxonomy, read_taxonomy(beside)], str(beside))
        origin += f" and its {_file(beside)}"
    n_images: Counter[str] = Counter()
    for shard in manifest.splits.get(TRAINING_FOLDER, ()):
        n_images[shard.class_name] += shard.samples
    sides = {
        int(n) for column in (store.table.height, store.table.width) for n in np.unique(column[:])
    }
    return TaxonomySource(
        taxonomy,
        origin,
        manifest.dataset,
        manifest.classes,
        n_images,
        _PRESETS_BY_SIDE.get(sides.pop()) if len(sides) == 1 else None,
    )


def _file(path: Path) -> str:
    return f"{path.name} (SHA-256 {hashlib.sha256(read_regular(path)).hexdigest()})"
