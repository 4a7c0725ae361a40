"""What a command's options select from a raw dataset."""

import reprlib
from pathlib import Path

from iirc_data.benchmarks import Benchmark
from iirc_data.errors import SourceError
from iirc_data.reading import read_text
from iirc_data.sources import ClassSubset, ReencodedSource, Source
from iirc_data.sources.derived import DEFAULT_QUALITY


def select(
    source: Source,
    *,
    classes: str | None,
    benchmark: Benchmark | None,
    resize: int | None = None,
    quality: int | None = None,
    crop_bottom: int = 0,
) -> Source:
    """Return the part of a dataset that a command's options select.

    Args:
        source: The whole dataset.
        classes: Value of ``--classes``, see :func:`read_class_list`; None for all classes.
        benchmark: Benchmark whose leaf classes to take; None for all classes.
        resize: Pixels to shrink the shorter side to; None to keep the size.
        quality: JPEG quality, 1 to 100; None for the default.
        crop_bottom: Rows to remove at the bottom of each image.

    Returns:
        The source. Its images are re-encoded if any of the last three is given.

    Raises:
        SourceError: The dataset lacks a selected class, or the list of classes cannot be read.
    """
    for names in selected_classes(classes, benchmark):
        source = ClassSubset.of(source, names)
    if resize is not None or quality is not None or crop_bottom:
        source = ReencodedSource(source, resize, quality or DEFAULT_QUALITY, crop_bottom)
    return source


def selected_classes(classes: str | None, benchmark: Benchmark | None) -> list[frozenset[str]]:
    """Return the sets of classes that the options name.

    The dataset must have every class of every set; the classes in all sets are taken.

    Args:
        classes: Value of ``--classes``, see :func:`read_class_list`.
        benchmark: Benchmark whose leaf classes to take.

    Raises:
        SourceError: See :func:`read_class_list`.
        BenchmarkError: The benchmark draws from several datasets.
    """
    if benchmark is not None:
        benchmark.check_one_dataset("make the shards of each without --benchmark")
    chosen = [] if benchmark is None else [frozenset(benchmark.leaf_classes)]
    if classes is not None:
        chosen.append(frozenset(read_class_list(classes)))
    return chosen


def read_class_list(text: str, option: str = "--classes") -> list[str]:
    """Return the class names of a comma-separated list, or of a file with one class per line.

    Args:
        text: The list, or the path of the file.
        option: The option that has this value, for the error.

    Raises:
        SourceError: No class is named, or the file cannot be read.
    """
    names = _lines(text) if _names_a_file(text) else text.split(",")
    found = [name.strip() for name in names if name.strip()]
    if not found:
        raise SourceError(f"{option} {reprlib.repr(text)} names no class")
    return found


def _names_a_file(text: str) -> bool:
    """Return whether a text is meant as a file name; a folder may have the name of a class."""
    if "/" in text and "," not in text:  # a class name has no slash; report why the file fails
        return True
    try:
        return not Path(text).is_dir() and Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or contains NUL
        return False


def _lines(path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"cannot read the list of classes {path}: {reason}") from error
