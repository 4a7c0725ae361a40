"""``iirc train``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from iirc_data.errors import ConfigurationError
from iirc_data.interrupts import interrupted_in_one_line
from iirc_train.commands.options import default_in_help, given, with_settings
from iirc_train.composition import compose
from iirc_train.distributed import is_first_process
from iirc_train.report.results import read_results
from iirc_train.report.tables import task_table
from iirc_train.runs import repeat_experiment, resume_experiment, run_experiment
from iirc_train.tracking import Tracking

CONFIG_OPTION = Annotated[
    Path | None, typer.Option(help="YAML file of settings; they win over the preset's.")
]


@with_settings(
    {
        "output": Annotated[Path | None, typer.Option(help="Folder for the run.")],
        "resume": Annotated[Path | None, typer.Option(help="Folder of a run to go on with.")],
        "repeat": Annotated[
            Path | None,
            typer.Option(help="Folder of a run to do again, in --output: same settings and data."),
        ],
        "preset": Annotated[
            str | None,
            typer.Option(help="Start from a published configuration; 'iirc presets' lists them."),
        ],
        "config": CONFIG_OPTION,
        "tensorboard": Annotated[
            bool | None,
            typer.Option(
                help="Write curves for TensorBoard into the run's folder." + default_in_help(True)
            ),
        ],
        "wandb_project": Annotated[
            str | None, typer.Option(help="Log to this project of Weights & Biases too.")
        ],
    }
)
def train(
    output: Path | None,
    resume: Path | None,
    repeat: Path | None,
    preset: str | None,
    config: Path | None,
    tensorboard: bool | None,
    wandb_project: str | None,
    **settings: Any,
) -> None:
    """Train a method through all tasks of a benchmark's schedule.

    Settings come from a preset, a YAML file and options; of these the later wins. Ctrl-C stops
    after the running epoch, with a checkpoint.
    """
    console = Console()
    overrides = given(settings)
    chosen = bool(preset or config or overrides)
    tracking = Tracking(tensorboard is not False, wandb_project)
    run = resume or output
    if resume is not None and (output or repeat or chosen):
        raise ConfigurationError(
            "--resume goes on as the run began: give no option but --tensorboard and "
            "--wandb-project"
        )
    if run is None:
        raise ConfigurationError("say where the run goes: --output FOLDER")
    if repeat is not None and chosen:
        raise ConfigurationError(
            "--repeat takes the settings of the run: give no other option than --output"
        )
    hint = f"go on with: iirc train --resume {run}" if is_first_process() else ""
    with interrupted_in_one_line(hint):
        if resume is not None:
            resume_experiment(resume, console, tracking=tracking)
        elif repeat is not None:
            repeat_experiment(repeat, run, console, tracking=tracking)
        else:
            configuration = compose(preset, config, overrides)
            run_experiment(configuration, run, console, tracking=tracking)
    if is_first_process():
        console.print(task_table(read_results(run)))
        console.print(f"run: {run}", highlight=False)
