"""Paths and addresses of a run's data and benchmark."""

import os
from pathlib import Path
from typing import Any

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


def at_home(path: Path) -> Path:
    """Replace a leading ``~`` with the home folder; a shell does not in ``--data=~/x``."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: a folder may have that name
        return path


def absolute_data(data: str) -> str:
    """Return the address of a dataset, with a relative path made absolute."""
    return str(Path(data).absolute()) if _is_path(data) else data


def benchmark_file(benchmark: str) -> Path | None:
    """Return the file of a benchmark, or None if it is given by name."""
    path = Path(benchmark)
    return path if path.suffix == ".json" and "://" not in benchmark else None


def absolute_benchmark(benchmark: str) -> str:
    """Return the name of a benchmark, or the absolute path of its file."""
    file = benchmark_file(benchmark)
    return benchmark if file is None else str(file.absolute())


def is_same_data(one: str, other: str) -> bool:
    """Return whether two addresses lead to the same dataset."""
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
