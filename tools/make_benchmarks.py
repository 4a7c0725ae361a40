"""Make ``manifests/``: the benchmarks of the published package ``iirc``, and other protocols."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from iirc_data.benchmarks import (
    Benchmark,
    SamplingSettings,
    SplitSettings,
    benchmark_text,
    manifests_folder,
)
from iirc_data.console import errors_in_one_line, run_tool
from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, Setup
from iirc_data.errors import BenchmarkError
from iirc_data.files import write_atomically
from tools.protocols import protocols

ATTRIBUTION = (
    "Converted from the metadata of the Python package iirc 1.0.1 "
    "(https://github.com/chandar-lab/IIRC), MIT License, Copyright (c) 2021 chandar-lab, by "
    "Mohamed Abdelsalam, Mojtaba Faramarzi, Shagun Sodhani and Sarath Chandar "
    "(IIRC: Incremental Implicitly-Refined Classification, arXiv:2012.12477). "
    "The licence is in LICENSE-iirc beside this file."
)

# the hierarchy omits two ImageNet classes that share their WordNet word with another class
NAMES_OUTSIDE_THE_HIERARCHY = {"n02012849": "crane (bird)", "n03710637": "maillot (tights)"}


@dataclass(frozen=True)
class Published:
    """The location of one benchmark in the published package.

    Attributes:
        description: One or two sentences for people.
        dataset: ``"cifar100"`` or ``"imagenet"``.
        setup: ``"IIRC"`` or ``"CIL"``.
        classes: File with the hierarchy or the list of classes.
        configuration: Entry of ``dataset_configurations.json``. The published loader gives
            ``incremental_imagenet`` the entry ``iirc_imagenet``; here it has its own entry. The
            split ratios are the same, and nothing is sampled if every sample has one label.
    """

    description: str
    dataset: Literal["cifar100", "imagenet"]
    setup: Setup
    classes: str
    configuration: str


PUBLISHED = {
    "iirc_cifar100": Published(
        "CIFAR-100 with 15 superclasses: 10 of them first, then 21 tasks of 5 classes, in 10 "
        "orders.",
        "cifar100",
        IIRC_SETUP,
        "iirc_cifar100_hierarchy.json",
        "iirc_cifar100",
    ),
    "incremental_cifar100": Published(
        "Class-incremental CIFAR-100: 50 classes first, then 10 tasks of 5, in 10 orders.",
        "cifar100",
        CIL_SETUP,
        "cifar100_classes.json",
        "incremental_cifar100",
    ),
    "iirc_imagenet_full": Published(
        "998 ImageNet classes with 85 superclasses: 63 of them first, then 34 tasks of 30 "
        "classes, in 5 orders.",
        "imagenet",
        IIRC_SETUP,
        "iirc_imagenet_hierarchy_wnids.json",
        "iirc_imagenet",
    ),
    "iirc_imagenet_lite": Published(
        "The first stretch of an IIRC-ImageNet: 63 superclasses, then 9 tasks of 30 classes, in "
        "5 orders. The taxonomy is the whole one, for a superclass shows all its subclasses, "
        "scheduled or not.",
        "imagenet",
        IIRC_SETUP,
        "iirc_imagenet_hierarchy_wnids.json",
        "iirc_imagenet",
    ),
    "incremental_imagenet_full": Published(
        "Class-incremental ImageNet: 160 classes first, then 28 tasks of 30, in 5 orders.",
        "imagenet",
        CIL_SETUP,
        "imagenet_classes.json",
        "incremental_imagenet",
    ),
    "incremental_imagenet_lite": Published(
        "The first stretch of a class-incremental ImageNet: 160 classes, then 9 tasks of 30, in "
        "5 orders.",
        "imagenet",
        CIL_SETUP,
        "imagenet_classes.json",
        "incremental_imagenet",
    ),
}


def convert(name: str, metadata: Path) -> Benchmark:
    """Convert one published benchmark.

    Classes keep the order of the published files, because it determines the order of samples in
    the published loaders.

    Args:
        name: A key of :data:`PUBLISHED`.
        metadata: The published package's folder ``metadata``.

    Raises:
        BenchmarkError: A file is missing, or differs from ``iirc`` 1.0.1.
    """
    try:
        return _convert(name, PUBLISHED[name], metadata)
    except KeyError as error:
        raise BenchmarkError(f"{metadata} is not the metadata of iirc 1.0.1: no {error}") from error


def _convert(name: str, published: Published, metadata: Path) -> Benchmark:
    classes = _read(metadata / published.classes)
    settings = _read(metadata / "dataset_configurations.json")[published.configuration]
    configurations = _read(metadata / f"{name}_task_configurations.json")
    superclasses = classes.get("super_classes", {})
    other_classes = classes["other_sub_classes"] if superclasses else classes["classes"]
    leaves = {leaf for names in [*superclasses.values(), other_classes] for leaf in names}
    words = _imagenet_words(metadata) if published.dataset == "imagenet" else {}
    return Benchmark(
        name=name,
        dataset=published.dataset,
        setup=published.setup,
        description=published.description,
        attribution=ATTRIBUTION,
        transforms="imagenet" if published.dataset == "imagenet" else "cifar",
        superclasses=superclasses,
        other_classes=other_classes,
        readable_names={leaf: words[leaf] for leaf in sorted(leaves) if leaf in words},
        image_order="published_imagenet" if published.dataset == "imagenet" else "dataset",
        splits=SplitSettings(
            intask_valid_ratio=settings["intask_valid_train_ratio"],
            posttask_valid_ratio=settings["posttask_valid_train_ratio"],
        ),
        sampling=SamplingSettings(
            superclass_data_pct=settings["superclass_data_pct"],
            subclass_data_pct=settings["subclass_data_pct"],
            superclass_sampling_size_cap=settings["superclass_sampling_size_cap"],
        ),
        schedules=[
            [tasks[f"task_{task}"] for task in range(len(tasks))]
            for tasks in (
                configurations[f"configuration_{number}"] for number in range(len(configurations))
            )
        ],
    )


def _imagenet_words(metadata: Path) -> dict[str, str]:
    wnids = _read(metadata / "iirc_imagenet_hierarchy_wnids.json")
    words = _read(metadata / "iirc_imagenet_hierarchy_words.json")
    names = dict(NAMES_OUTSIDE_THE_HIERARCHY)
    for superclass, subclasses in wnids["super_classes"].items():
        names.update(zip(subclasses, words["super_classes"][superclass], strict=True))
    names.update(zip(wnids["other_sub_classes"], words["other_sub_classes"], strict=True))
    return names


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise BenchmarkError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BenchmarkError(f"{path} is not valid JSON: {error}") from error
    return content


def published_metadata() -> Path:
    """Return the folder ``metadata`` of the installed package ``iirc``, without importing it.

    Raises:
        BenchmarkError: The package is not installed.
    """
    spec = importlib.util.find_spec("iirc")
    if spec is None or not spec.submodule_search_locations:
        raise BenchmarkError(
            "the package iirc is not installed: pip install iirc==1.0.1, or give the path of its "
            "metadata folder"
        )
    return Path(spec.submodule_search_locations[0]) / "metadata"


def main(
    metadata: Annotated[
        Path | None,
        typer.Argument(help="Metadata folder of iirc 1.0.1; by default that of the installed one."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder to write the benchmarks to.")
    ] = manifests_folder(),  # noqa: B008 - typer shows the default in its help
) -> None:
    """Write the benchmarks of the published package iirc, and the protocols of other code."""
    with errors_in_one_line():
        folder = published_metadata() if metadata is None else metadata
        benchmarks = [convert(name, folder) for name in PUBLISHED]
    for benchmark in (*benchmarks, *protocols()):
        with write_atomically(out / f"{benchmark.name}.json") as file:
            file.write(benchmark_text(benchmark).encode())


if __name__ == "__main__":
    run_tool(main)
