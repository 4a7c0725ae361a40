"""``iirc sweep``: many runs from one command."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from iirc_data.cluster import cluster_executor
from iirc_data.commands.number_list import parse_numbers
from iirc_data.console import plain_console
from iirc_data.errors import ConfigurationError
from iirc_data.interrupts import interrupted_in_one_line
from iirc_train.cli.options import at_home_if_given, given, with_settings
from iirc_train.cli.train import CONFIG_OPTION
from iirc_train.metrics import METRICS
from iirc_train.report.wide_tables import (
    Column,
    print_tables,
    tables_within,
    terminal_width,
)
from iirc_train.runtime.lines import print_line
from iirc_train.runtime.program import OWN
from iirc_train.sweep import LOG_NAME, Outcome, checkpoint_time, plan, run_all


@with_settings(
    {
        "context": typer.Context,
        "output": Annotated[Path | None, typer.Option(help="Folder for the runs.")],
        "method": Annotated[
            list[str] | None, typer.Option(help="Method; may be given several times.")
        ],
        "schedule": Annotated[
            list[str] | None, typer.Option(help="Indices of schedules, such as 0, 0-4 or 0,2.")
        ],
        "seed": Annotated[list[str] | None, typer.Option(help="Seeds, such as 0, 0-4 or 0,2.")],
        "vary": Annotated[
            list[str] | None,
            typer.Option(
                metavar="SETTING=VALUE,...",
                help="Values of any other setting, such as lr=0.1,0.3; given several times, every "
                "combination. Methods without the setting are trained without it.",
            ),
        ],
        "preset": Annotated[
            list[str] | None,
            typer.Option(
                help="Published configuration; may be given several times. 'auto' chooses that of "
                "each method for the benchmark."
            ),
        ],
        "config": CONFIG_OPTION,
        "jobs": Annotated[
            int | None,
            typer.Option(
                min=1,
                help="Number of runs to train at the same time on this machine; 1 by default. They "
                "share its CPU cores; on CPU, --threads 1 is often the fastest. Each gets one of "
                "the machine's GPUs, the one with the fewest runs.",
            ),
        ],
        "scheduler": Annotated[
            str | None,
            typer.Option(
                help="Train on the dask.distributed cluster with this scheduler, for example "
                "tcp://host:8786; its workers must see the same files."
            ),
        ],
    }
)
def sweep(
    context: typer.Context,
    output: Path | None,
    method: list[str] | None,
    schedule: list[str] | None,
    seed: list[str] | None,
    vary: list[str] | None,
    preset: list[str] | None,
    config: Path | None,
    jobs: int | None,
    scheduler: str | None,
    **settings: Any,
) -> None:
    """Train every combination of methods, settings, schedules and seeds, each in its own folder.

    Run the command again to resume the sweep: it skips finished runs, and continues the others
    from their last checkpoints. A run that fails does not stop the others.
    """
    output, config = at_home_if_given(output), at_home_if_given(config)
    if output is None:
        raise ConfigurationError("no folder for the runs: give --output FOLDER")
    if jobs is not None and scheduler is not None:
        raise ConfigurationError(
            "--jobs trains on this machine, --scheduler on a cluster: choose one"
        )
    runs = plan(
        output,
        presets=preset or [],
        methods=method or [],
        schedules=_numbers("schedule", schedule),
        seeds=_numbers("seed", seed),
        vary=_varied(vary),
        file=config,
        overrides=given(settings),
    )
    console = plain_console()
    print_line(console, f"{len(runs)} runs in {output}")

    def show(outcome: Outcome) -> None:
        print_line(console, f"{outcome.run.name}: {_ending(outcome)}")

    def stopping() -> None:
        text = "the runs stop after their current steps, with checkpoints"
        if scheduler is None:
            text += "; Ctrl-C again stops at once"
        print_line(console, text)

    hint = "run the same command again to resume"
    note = partial(print_line, console)
    with interrupted_in_one_line(hint), _executor(jobs or 1, scheduler, note) as executor:
        outcomes = run_all(runs, executor, show, stopping, context.obj or OWN)
    print_tables(console, _tables(outcomes, terminal_width(console)))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        log = outcome.run.folder / LOG_NAME
        reason = f", see {log}" if log.exists() else f": {outcome.error}"
        print_line(console, f"error: {outcome.run.name} failed{reason}")
    if failed:
        raise SystemExit(1)


@contextmanager
def _executor(jobs: int, scheduler: str | None, note: Callable[[str], None]) -> Iterator[Executor]:
    with cluster_executor(scheduler, note, checkpoint_time) as cluster:
        if cluster is not None:
            yield cluster
            return
        with ThreadPoolExecutor(jobs) as threads:  # each thread waits for a process
            yield threads


def _numbers(name: str, texts: list[str] | None) -> list[int]:
    """Read numbers such as ``0``, ``0-4`` or ``0,2``."""
    try:
        return parse_numbers(",".join(texts)) if texts else []
    except ValueError as error:
        raise ConfigurationError(
            f"--{name} {str(error)!r} is not a number: give numbers such as 0, 0-4 or 0,2"
        ) from error


def _varied(texts: list[str] | None) -> dict[str, list[str]]:
    """Read settings with their values, such as ``lr=0.1,0.3``."""
    varied: dict[str, list[str]] = {}
    for text in texts or []:
        name, _, values = text.partition("=")
        found = [value.strip() for value in values.split(",")]
        if not name or not all(found):
            raise ConfigurationError(
                f"--vary {text!r} is not a setting with values: give both, such as lr=0.1,0.3"
            )
        varied.setdefault(name.strip().removeprefix("--").replace("-", "_"), []).extend(found)
    return varied


def _tables(outcomes: list[Outcome], width: int | None) -> list[Table]:
    labels = {METRICS[outcome.metric].label for outcome in outcomes if outcome.metric is not None}
    what = " or ".join(sorted(labels)) or "results"
    return tables_within(
        width,
        f"{what} on the test split, all classes seen",
        [Column("run", [outcome.run.name for outcome in outcomes], justify="left")],
        [Column("after the last task", list(map(_ending, outcomes)), justify="left")],
    )


def _ending(outcome: Outcome) -> str:
    return f"{outcome.score:.3f}" if outcome.error is None else f"failed: {outcome.error}"
