"""Where a run finds its data and its benchmark, told so that it holds in any folder."""

import os
from pathlib import Path
from typing import Any

from iirc_data.shards.addresses import local_path


def read_place(value: Any) -> str:
    """Check a path or an address; ``~`` at its start is the home folder.

    A path need not be UTF-8: names of old archives often are not.

    Raises:
        ValueError: It is something else, or empty.
    """
    if not isinstance(value, str | os.PathLike):
        quotes = "" if value is None else f": put it in quotes, '{value}'"
        raise ValueError(f"expected a path or an address{quotes}")
    place = os.fspath(value)
    if place.startswith("~"):
        place = str(at_home(Path(place)))
    if not place or "\0" in place:
        raise ValueError("expected a path or an address, not an empty one or a NUL character")
    return place


def at_home(path: Path) -> Path:
    """Return a path with the home folder for ``~``, which a shell leaves in ``--data=~/x``."""
    try:
        return path.expanduser()
    except RuntimeError:  # nobody's home is known: a folder may be called so
        return path


def absolute_data(data: str) -> str:
    """Return the address of a dataset so that it holds in any folder."""
    return str(Path(data).absolute()) if _is_path(data) else data


def benchmark_file(benchmark: str) -> Path | None:
    """Return the file of a benchmark; None for one that is known by name."""
    path = Path(benchmark)
    return path if path.suffix == ".json" and "://" not in benchmark else None


def absolute_benchmark(benchmark: str) -> str:
    """Return the name of a benchmark, or the path of its file so that it holds in any folder."""
    file = benchmark_file(benchmark)
    return benchmark if file is None else str(file.absolute())


def is_same_data(one: str, other: str) -> bool:
    """Tell whether two addresses of datasets are two spellings of one."""
    ours, theirs = local_path(one), local_path(other)
    return one == other if ours is None or theirs is None else _is_same_path(ours, theirs)


def is_same_benchmark(one: str, other: str) -> bool:
    """Tell whether two benchmarks have one name, or are two spellings of one file."""
    ours, theirs = benchmark_file(one), benchmark_file(other)
    return one == other if ours is None or theirs is None else _is_same_path(ours, theirs)


def _is_same_path(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_path(address: str) -> bool:
    return "://" not in address and local_path(address) is not None
