"""``iirc demo``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iirc_train.demo import run_demo


def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """See the whole pipeline at work on drawn images, in minutes."""
    run_demo(output, seed, Console())
