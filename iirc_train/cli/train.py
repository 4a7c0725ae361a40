"""``iirc train``: start, resume or repeat a run."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from iirc_data.console import plain_console
from iirc_data.errors import ConfigurationError
from iirc_data.interrupts import interrupted_in_one_line
from iirc_train.cli.options import at_home_if_given, default_in_help, given, with_settings
from iirc_train.config.auto_preset import implied_preset, missed_preset
from iirc_train.config.compose import compose, resolved_preset
from iirc_train.methods.settings import method_configs
from iirc_train.report.tables import task_tables
from iirc_train.report.wide_tables import print_tables, terminal_width
from iirc_train.run.directory import CONFIG_NAME
from iirc_train.run.results import read_results
from iirc_train.run.trackers import Tracking
from iirc_train.runtime.distributed import has_launcher, is_first_process
from iirc_train.runtime.lines import print_line
from iirc_train.runtime.program import OWN, this_program, typed_program
from iirc_train.training.branch import branch_experiment
from iirc_train.training.launch import (
    CHANGEABLE,
    REPLACEABLE,
    check_changeable,
    continue_experiment,
    repeat_experiment,
    resume_experiment,
)

CONFIG_OPTION = Annotated[
    Path | None, typer.Option(help="YAML file of settings; they override the preset's.")
]


@with_settings(
    {
        "output": Annotated[Path | None, typer.Option(help="Folder for the run.")],
        "resume": Annotated[
            Path | None,
            typer.Option(
                help="Folder of a run to resume. --data and --benchmark give the new place of its "
                "data; --device, --threads, --decoder and others adapt it to another machine."
            ),
        ],
        "repeat": Annotated[
            Path | None,
            typer.Option(
                help="Folder of a run to repeat in --output, with the same settings and data; the "
                "data may have moved, as with --resume."
            ),
        ],
        "parent": Annotated[
            Path | None,
            typer.Option(
                "--from",
                help="Folder of a run to branch from after --from-task, in --output; options "
                "change its settings for the tasks that follow.",
            ),
        ],
        "from_task": Annotated[
            int | None,
            typer.Option(
                help="The last task that a branch takes over; the run must have kept its state "
                "(--save-each-task-model)."
            ),
        ],
        "preset": Annotated[
            str | None,
            typer.Option(
                help="Published configuration to start from; 'iirc presets' lists them. 'auto' "
                "chooses that of the method for the benchmark, and is the default if there is one "
                "and no option says how to train."
            ),
        ],
        "config": CONFIG_OPTION,
        "tensorboard": Annotated[
            bool | None,
            typer.Option(
                help="Write curves for TensorBoard to the run's folder." + default_in_help(True)
            ),
        ],
        "wandb_project": Annotated[
            str | None, typer.Option(help="Also log to this project of Weights & Biases.")
        ],
    }
)
def train(
    output: Path | None,
    resume: Path | None,
    repeat: Path | None,
    parent: Path | None,
    from_task: int | None,
    preset: str | None,
    config: Path | None,
    tensorboard: bool | None,
    wandb_project: str | None,
    **settings: Any,
) -> None:
    """Train a method through all tasks of a benchmark's schedule.

    Settings come from a preset, a YAML file and options; options override the file, and the file
    overrides the preset. Ctrl-C stops the run after the current step, with a checkpoint; the same
    command, or --resume with the run's folder, resumes it.
    """
    console = plain_console()
    output, resume, repeat, parent, config = map(
        at_home_if_given, (output, resume, repeat, parent, config)
    )
    overrides = given(settings)
    tracking = Tracking(tensorboard is not False, wandb_project)
    run = resume or output
    if resume is not None and (output or repeat or parent):
        raise ConfigurationError(
            "--resume continues in the run's folder: leave out --output, --repeat, --from"
        )
    if (parent is None) != (from_task is None):
        raise ConfigurationError("--from RUN and --from-task TASK belong together: give both")
    if parent is not None and (repeat or preset or config):
        raise ConfigurationError(
            "--from uses the settings of the run: leave out --repeat, --preset, --config, and give "
            "options for what changes"
        )
    if run is None:
        raise ConfigurationError("no folder for the run: give --output FOLDER")
    for option, folder, names in (
        ("--resume", resume, CHANGEABLE),
        ("--repeat", repeat, REPLACEABLE),
    ):
        if folder is not None:
            sources = {"preset": preset, "config": config}
            check_changeable(option, [*given(sources), *overrides], names)
    with interrupted_in_one_line(partial(how_to_resume, run)):
        if resume is not None:
            resume_experiment(resume, console, tracking=tracking, changes=overrides)
        elif parent is not None and from_task is not None:
            branch_experiment(parent, from_task, run, console, tracking=tracking, changes=overrides)
        elif repeat is not None:
            repeat_experiment(repeat, run, console, tracking=tracking, changes=overrides)
        else:
            if preset is None and config is None:
                preset = implied_preset(overrides)
                missed = missed_preset(overrides) if preset is None else None
                if missed is not None and is_first_process():
                    note = "note: other settings are general defaults, not the published ones; "
                    print_line(console, f"{note}'--preset auto' starts from {missed}")
            preset = resolved_preset(preset, config, overrides)
            configuration = compose(preset, config, overrides, methods=method_configs())
            continue_experiment(configuration, run, console, tracking=tracking, preset=preset)
    if is_first_process():
        print_tables(console, task_tables(read_results(run), terminal_width(console)))
        print_line(console, f"run: {run}")


def how_to_resume(run: Path) -> str:
    """Return what to do after an interrupt; only the first process of a run says it."""
    if not is_first_process():
        return ""
    if not (run / CONFIG_NAME).exists():
        return "the run had not begun; run the same command again"
    if has_launcher():
        return "run the same command again to resume"
    program = ["iirc"] if this_program() == OWN else typed_program()
    return f"resume with: {shlex.join([*program, 'train', '--resume', str(run)])}"
