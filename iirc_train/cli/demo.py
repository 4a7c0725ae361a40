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
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything random.")] = 0,
) -> None:
    """See the whole pipeline at work on drawn images, in minutes.

    Running the same command again resumes an interrupted demonstration.
    """
    with interrupted_in_one_line("run the same command again to go on; what was done is kept"):
        run_demo(at_home(output), seed, plain_console())
