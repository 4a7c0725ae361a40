"""The text of a benchmark's file, and the digest of what it defines."""

import hashlib
import json
from typing import Any

from iirc_data.benchmarks.definition import Benchmark
from iirc_data.files import canonical_json

_NAMES_PER_ROW = 10
_FOR_READERS = {"name", "description", "attribution"}


def benchmark_text(benchmark: Benchmark) -> str:
    """Return the content of a benchmark's file."""
    return to_json(benchmark.model_dump()) + "\n"


def content_digest(benchmark: Benchmark) -> str:
    """Return the SHA-256 of what a benchmark defines.

    It does not depend on the layout of the file, the name, the description and the attribution.
    """
    content = {k: v for k, v in benchmark.model_dump().items() if k not in _FOR_READERS}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def to_json(value: Any, indent: str = "") -> str:
    """Return JSON with one entry per line and lists of names in rows, for short diffs."""
    deeper = indent + " "
    if isinstance(value, dict) and value:
        entries = [f"{json.dumps(key)}: {to_json(item, deeper)}" for key, item in value.items()]
        opening, closing = "{}"
    elif isinstance(value, list) and value and isinstance(value[0], list):
        entries = [to_json(item, deeper) for item in value]
        opening, closing = "[]"
    elif isinstance(value, list) and len(value) > _NAMES_PER_ROW:
        rows = [value[i : i + _NAMES_PER_ROW] for i in range(0, len(value), _NAMES_PER_ROW)]
        entries = [", ".join(map(json.dumps, row)) for row in rows]
        opening, closing = "[]"
    else:
        return json.dumps(value)
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(entries) + f"\n{indent}{closing}"
