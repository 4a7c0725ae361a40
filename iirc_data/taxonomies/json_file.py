"""A taxonomy in a JSON file ``{superclass: [direct subclasses]}``."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from iirc_data.benchmarks import parse_json
from iirc_data.errors import BenchmarkError
from iirc_data.reading import read_text
from iirc_data.taxonomies.reduction import make_taxonomy
from iirc_data.taxonomy import Taxonomy


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a JSON file ``{superclass: [direct subclasses]}``.

    A subclass may be a superclass itself.

    Raises:
        BenchmarkError: The file cannot be read, or its content is not a taxonomy.
    """
    content = parse_json(read_taxonomy_text(path), str(path))
    try:
        superclasses = TypeAdapter(dict[str, list[str]]).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise BenchmarkError(
            f"{path} is not a taxonomy {{superclass: [subclasses]}}: {field}: {first['msg']}"
        ) from error
    return make_taxonomy(superclasses, (), str(path))


def read_taxonomy_text(path: Path) -> str:
    """Read the text of a taxonomy.

    Raises:
        BenchmarkError: The file cannot be read, or is not text.
    """
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BenchmarkError(f"cannot read taxonomy {path}: {reason}") from error
