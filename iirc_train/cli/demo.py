"""``iirc demo``."""

from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import plain_console
from iirc_data.interrupts import interrupted_in_one_line
from iirc_train.config.places import at_home
from iirc_train.demo import run_demo


def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of random numbers.")] = 0,
) -> None:
    """Run the whole pipeline on drawn images, in minutes.

    Run the command again to resume an interrupted demonstration.
    """
    with interrupted_in_one_line("run the same command again to resume"):
        run_demo(at_home(output), seed, plain_console())
