"""The options of ``iirc benchmarks make``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from iirc_data.definitions import CIL_SETUP, IIRC_SETUP

AUTO = "auto"


class SetupName(StrEnum):
    """The setups."""

    IIRC = IIRC_SETUP
    CIL = CIL_SETUP


class OrderName(StrEnum):
    """The orders of :func:`iirc_data.benchmarks.schedules.make_schedule`."""

    SUPERCLASSES_FIRST = "superclasses-first"
    LEVEL_BY_LEVEL = "level-by-level"
    MIXED = "mixed"


class End(StrEnum):
    """The two ends of a taxonomy."""

    TOP = "top"
    LEAVES = "leaves"


Sources: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Shard folders, folders of superclasses that hold folders of classes, .csv files with "
        "the columns class,parent, .json files that map superclasses to lists of subclasses, or "
        "benchmarks; several are merged."
    ),
]
Output: TypeAlias = Annotated[
    Path, typer.Option(dir_okay=False, help="Benchmark file to write, NAME.json.")
]
TaskSize: TypeAlias = Annotated[int, typer.Option(min=1, help="Classes per task.")]
Orders: TypeAlias = Annotated[
    list[OrderName] | None,
    typer.Option(
        help="Order of the classes; if given several times, schedules of each are made. "
        f"Default: {OrderName.SUPERCLASSES_FIRST}."
    ),
]
Seeds: TypeAlias = Annotated[
    str, typer.Option(help="One schedule is made for each of these seeds, such as 0-9.")
]
FirstTask: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Classes of the first task. Default: those of the top level; as --task-size for "
        "mixed orders and CIL.",
    ),
]
SetupOption: TypeAlias = Annotated[SetupName, typer.Option(help="CIL leaves out all superclasses.")]
Levels: TypeAlias = Annotated[
    int | None, typer.Option(min=2, help="Keep this many levels, the leaf classes included.")
]
LevelsFrom: TypeAlias = Annotated[
    End,
    typer.Option(help="With --levels: keep the superclasses at the top, or those next to leaves."),
]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Take only these leaf classes: a comma-separated list, or a file with one per line."
    ),
]
Superclasses: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Take only these superclasses, a list or a file. With --wordnet, senses such as "
        "dog.n.01 are known too."
    ),
]
WordNetPlace: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--wordnet",
        metavar="FOLDER",
        help="Take superclasses from WordNet, where classes are WordNet ids: the folder of "
        f"data.noun, or {AUTO}.",
    ),
]
SeveralSuperclasses: TypeAlias = Annotated[
    bool,
    typer.Option("--several-superclasses", help="Allow a class to have several superclasses."),
]
SuperclassDataPct: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="FRACTION",
        help="Fraction of a leaf class's samples shown under a superclass, or one for each level "
        "from the top: 0.3,0.5.",
    ),
]
SubclassDataPct: TypeAlias = Annotated[
    float, typer.Option(min=0, max=1, help="Fraction shown under the leaf class.")
]
Cap: TypeAlias = Annotated[
    int,
    typer.Option(
        min=1,
        help="A superclass with more leaf classes below it shows proportionally less of each.",
    ),
]
OneLevelPerSample: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--one-level-per-sample",
        help="Show each sample at one level only, instead of the three options above.",
    ),
]
IntaskValidRatio: TypeAlias = Annotated[
    float, typer.Option(min=0, max=1, help="Fraction of training samples for in-task validation.")
]
PosttaskValidRatio: TypeAlias = Annotated[
    float,
    typer.Option(min=0, max=1, help="Fraction of training samples for post-task validation."),
]
ImagePresetName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Image preset of the benchmark. Default: that of the source; for shards, by the size "
        "of the images; else imagenet."
    ),
]
Name: TypeAlias = Annotated[
    str | None, typer.Option(help="Name of the benchmark. Default: that of the file.")
]
DatasetName: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Name of the dataset. Default: that of the shards, or the first source."),
]
Description: TypeAlias = Annotated[
    str | None, typer.Option(help="One or two sentences. Default: classes, tasks and orders.")
]
Origin: TypeAlias = Annotated[
    str | None, typer.Option(help="Where the taxonomy comes from, for the attribution.")
]
LicenseNote: TypeAlias = Annotated[
    str | None, typer.Option("--license", help="Licence of the taxonomy, for the attribution.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that has other content.")
]
