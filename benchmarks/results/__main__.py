"""``python -m benchmarks.results FILE ...``: the tables of results, in Markdown."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results import Result


def main(files: Annotated[list[Path], typer.Argument(help="JSON files of results.")]) -> None:
    """Print tables in Markdown."""
    for file in files:
        print(Result.model_validate_json(file.read_bytes()).markdown(), end="\n\n")


if __name__ == "__main__":
    typer.run(main)
