"""Runs of ``iirc train`` that the measurements of methods share."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import typer
from typer.main import get_command

from iirc_data.errors import ConfigurationError
from iirc_data.files import write_atomically
from iirc_train.cli.app import app
from iirc_train.cli.lazy import LazyGroup
from iirc_train.cli.options import given
from iirc_train.config.auto_preset import implied_preset
from iirc_train.config.compose import compose, resolved_preset
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.places import is_same_benchmark
from iirc_train.methods.settings import method_configs
from iirc_train.run.directory import RunDirectory
from iirc_train.training.same_run import changes_to

_END = "<!-- end -->"


def settings_of(command: str) -> ExperimentConfig:
    """Return the settings that a command ``iirc train …`` gives a run."""
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    train = group.get_command(typer.Context(group), "train")
    params = train.make_context("train", shlex.split(command)[2:]).params
    options = given({n: list(v) if isinstance(v, tuple) else v for n, v in params.items()})
    file, preset, _ = (options.pop(name, None) for name in ("config", "preset", "output"))
    if preset is None and file is None:
        preset = implied_preset(options)
    preset = resolved_preset(preset, file, options)
    return compose(preset, file, options, methods=method_configs())


def check_made_by(command: str, folder: Path) -> None:
    """Check that a run has the settings of a command; its data may be elsewhere.

    Args:
        command: Command that starts the run: ``iirc train …``.
        folder: The run's folder.

    Raises:
        ConfigurationError: The run has other settings.
    """
    saved = RunDirectory.open(folder)[1]
    config = settings_of(command).model_copy(update={"data": saved.data})
    if not is_same_benchmark(saved.benchmark, config.benchmark):
        raise ConfigurationError(
            f"{folder} holds a run on the benchmark {saved.benchmark}, and its command has "
            f"{config.benchmark} now: remove the folder, or restore the command"
        )
    changes_to(folder, config)


def start_or_resume(command: str, folder: Path) -> None:
    """Start a run, or resume the run that its folder contains, on one thread.

    What the run prints is appended to ``<folder>.log``.

    Args:
        command: Command that starts the run: ``iirc train …``.
        folder: The run's folder, which is also the ``--output`` of the command.

    Raises:
        ConfigurationError: The run failed, for example because the folder contains a run with
            other settings; the message has the last line that it printed.
    """
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "iirc_train", *shlex.split(command)[1:]],
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        )
    if done.returncode:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise ConfigurationError(f"{folder}: exit status {done.returncode}: {last} (see {log})")


def replace_part(document: Path, program: str, lines: Iterable[str]) -> None:
    """Replace the part of a Markdown file that a program writes; the rest stays as it is.

    Args:
        document: Markdown file with a comment ``begin: written by <program>`` and a comment
            ``end``.
        program: Module that writes the part, for example ``benchmarks.methods_on_cifar10``.
        lines: The new lines between the comments.

    Raises:
        ConfigurationError: The file does not have the comments.
    """
    begin = f"<!-- begin: written by {program} -->"
    before, found, rest = document.read_text().partition(begin)
    _, ended, after = rest.partition(_END)
    if not found or not ended:
        raise ConfigurationError(f"{document} has no lines {begin!r} and {_END!r}: add both")
    text = f"{before}{begin}\n\n" + "\n".join(lines) + f"\n{_END}{after}"
    with write_atomically(document) as file:
        file.write(text.encode())
