"""Paths and addresses of a run's data and benchmark."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iirc_data.datasets import by_dataset
from iirc_data.shards.addresses import local_path


def read_place(value: Any) -> str:
    """Check a path or an address, and replace a leading ``~`` with the home folder.

    The path need not be valid UTF-8, because names from old archives often are not.

    Raises:
        ValueError: The value is not text or a path, is empty, or contains a NUL character.
    """
    if not isinstance(value, str | os.PathLike):
        quotes = "" if value is None else f": put it in quotes, '{value}'"
        raise ValueError(f"expected a path or an address{quotes}")
    place = os.fspath(value)
    if place.startswith("~"):
        place = str(at_home(Path(place)))
    if not place or "\0" in place:
        raise ValueError(
            "expected a path or an address that is not empty and contains no NUL character"
        )
    return place


def read_data(value: Any) -> str | dict[str, str]:
    """Read where data is: one place, or one for each of several datasets.

    Args:
        value: A path or an address; or several, by the name of their dataset: a mapping, or a list
            of ``name=place``.

    Raises:
        ValueError: A place is wrong (see :func:`read_place`), or a dataset is named twice.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        value = by_dataset(value)
    if isinstance(value, Mapping):
        if not value or not all(isinstance(name, str) for name in value):
            raise ValueError("expected the name of each dataset and its place")
        return {name: read_place(place) for name, place in value.items()}
    return read_place(value)


def at_home(path: Path) -> Path:
    """Replace a leading ``~`` with the home folder; a shell does not in ``--data=~/x``."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: a folder may have that name
        return path


def absolute_data(data: str | Mapping[str, str]) -> Any:
    """Return the address of a dataset, or of several, with relative paths made absolute."""
    if not isinstance(data, str):
        return {name: absolute_data(place) for name, place in data.items()}
    return str(Path(data).absolute()) if _is_path(data) else data


def benchmark_file(benchmark: str) -> Path | None:
    """Return the file of a benchmark, or None if it is given by name."""
    path = Path(benchmark)
    return path if path.suffix == ".json" and "://" not in benchmark else None


def absolute_benchmark(benchmark: str) -> str:
    """Return the name of a benchmark, or the absolute path of its file."""
    file = benchmark_file(benchmark)
    return benchmark if file is None else str(file.absolute())


def places_of(data: str | Mapping[str, str]) -> dict[str, str]:
    """Return the address of each dataset by name; the name of a single one is empty."""
    return {"": data} if isinstance(data, str) else dict(data)


def moved(data: str | Mapping[str, str], to: Any) -> Any:
    """Return where data is after it moved.

    Args:
        data: Where it was.
        to: Where it is, as :func:`read_data` reads it; of several datasets, those that moved.

    Returns:
        A value for :func:`read_data`; ``to`` itself if it is not readable.
    """
    try:
        now = read_data(to)
    except ValueError:
        return to
    return now if isinstance(data, str) or isinstance(now, str) else {**data, **now}


def is_same_data(one: str | Mapping[str, str], other: str | Mapping[str, str]) -> bool:
    """Return whether two addresses lead to the same dataset, or the same datasets by name."""
    if not (isinstance(one, str) and isinstance(other, str)):
        ours_by_name, theirs_by_name = places_of(one), places_of(other)
        return ours_by_name.keys() == theirs_by_name.keys() and all(
            is_same_data(place, theirs_by_name[name]) for name, place in ours_by_name.items()
        )
    ours, theirs = local_path(one), local_path(other)
    return one == other if ours is None or theirs is None else _is_same_path(ours, theirs)


def is_same_benchmark(one: str, other: str) -> bool:
    """Return whether two benchmarks have the same name, or are the same file."""
    ours, theirs = benchmark_file(one), benchmark_file(other)
    return one == other if ours is None or theirs is None else _is_same_path(ours, theirs)


def _is_same_path(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_path(address: str) -> bool:
    return "://" not in address and local_path(address) is not None
