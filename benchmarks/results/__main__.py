"""``python -m benchmarks.results FILE ...``: the tables of results, in Markdown."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from benchmarks.results import Result
from iirc_data.console import run_tool
from iirc_data.errors import ConfigurationError


def main(files: Annotated[list[Path], typer.Argument(help="JSON files of results.")]) -> None:
    """Print tables in Markdown."""
    for file in files:
        try:
            result = Result.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise ConfigurationError(
                f"{file} is not a result that a benchmark wrote: {error.errors()[0]['msg']}"
            ) from error
        print(result.markdown(), end="\n\n")


if __name__ == "__main__":
    run_tool(main)
