"""Finding and reading benchmark definitions."""

import difflib
import json
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from iirc_data.benchmarks.definition import Benchmark
from iirc_data.benchmarks.settings import TAGS
from iirc_data.errors import BenchmarkError
from iirc_data.masking import masked
from iirc_data.reading import read_text

SCHEMA_VERSION = 1


def manifests_folder() -> Path:
    """Return the folder of the benchmark definitions that ship with the package."""
    inside_wheel = Path(__file__).parents[1] / "manifests"
    return inside_wheel if inside_wheel.is_dir() else Path(__file__).parents[2] / "manifests"


def benchmark_names() -> list[str]:
    """Return the sorted names of the benchmarks that ship with the package."""
    return sorted(path.stem for path in manifests_folder().glob("*.json"))


def load_benchmark(name_or_path: str | Path) -> Benchmark:
    """Load a benchmark by name, or from a user's own JSON file.

    Args:
        name_or_path: A name from :func:`benchmark_names`, or the path of a ``.json`` file.

    Returns:
        The validated benchmark.

    Raises:
        BenchmarkError: The benchmark or file does not exist, or its content is invalid; the message
            names the field.
    """
    path = Path(name_or_path)
    if "://" in str(name_or_path):
        raise BenchmarkError(
            f"a benchmark is read from a file, not from an address: download "
            f"{masked(str(name_or_path))} and give its path"
        )
    if path.suffix != ".json":
        known = benchmark_names()
        if str(name_or_path) not in known:
            spelt = str(name_or_path).lower().replace("-", "_")
            close = difflib.get_close_matches(spelt, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise BenchmarkError(
                f"no benchmark is named {str(name_or_path)!r}{hint} "
                f"Known: {', '.join(known)}; or give the path of a .json file"
            )
        path = manifests_folder() / f"{name_or_path}.json"
    try:
        text = read_text(path)
    except UnicodeError as error:
        raise BenchmarkError(f"{path} is not valid JSON: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: NUL character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise BenchmarkError(f"cannot read benchmark file {path}: {reason}") from error
    return parse_benchmark(text, str(path))


def parse_benchmark(text: bytes | str, where: str) -> Benchmark:
    """Parse a benchmark definition.

    Args:
        text: JSON.
        where: Name of the text for error messages.

    Returns:
        The validated benchmark.

    Raises:
        BenchmarkError: The text is not JSON, or not a valid benchmark.
    """
    content = parse_json(text, where)
    if not isinstance(content, dict):
        raise BenchmarkError(
            f"{where} is not a valid benchmark: expected a JSON object, got {reprlib.repr(content)}"
        )
    version = content.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BenchmarkError(
            f"{where} has schema_version {version}, this release reads up to {SCHEMA_VERSION}: "
            "upgrade iirc-pipeline"
        )
    try:
        return Benchmark.model_validate(content)
    except ValidationError as error:
        problems = error.errors()
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BenchmarkError(
            f"{where} is not a valid benchmark: {'; '.join(map(_describe, problems[:5]))}{more}"
        ) from error


def parse_json(text: bytes | str, where: str) -> Any:
    """Parse JSON in which no object has a key twice.

    Args:
        text: JSON.
        where: What to call the text in an error.

    Raises:
        BenchmarkError: The text is not valid JSON, or an object has a key twice.
    """
    try:
        if isinstance(text, str):
            text = text.removeprefix("\ufeff")
        return json.loads(text, object_pairs_hook=_without_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where} is not valid JSON: {error}") from error


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    if repeated := [key for key, count in counts.items() if count > 1]:
        raise ValueError(f"{repeated[0]!r} occurs {counts[repeated[0]]} times in one object")
    return dict(pairs)


def _describe(problem: ErrorDetails) -> str:
    field = ".".join(str(part) for part in problem["loc"] if part not in TAGS)
    if problem["type"] == "value_error":  # raised by our own validators: the message names the rest
        message = str(problem["ctx"]["error"])
        return f"{field}: {message}" if field else message
    seen = problem["input"]
    shown = f", got {reprlib.repr(seen)}" if isinstance(seen, str | int | float | None) else ""
    return f"{field}: {problem['msg']}{shown}"
