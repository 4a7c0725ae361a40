"""Runs of ``iirc train`` that the measurements of methods share."""

import shlex
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.main import get_command

from iirc_data.benchmarks import load_benchmark
from iirc_data.console import one_line, plain_console
from iirc_data.dataset_checks import check_classes
from iirc_data.errors import ConfigurationError, IIRCError
from iirc_data.files import write_atomically
from iirc_data.interrupts import interrupted_in_one_line
from iirc_data.locks import sole_user
from iirc_data.shards import ShardStore
from iirc_train.cli.app import app
from iirc_train.cli.lazy import LazyGroup
from iirc_train.cli.options import given
from iirc_train.config.auto_preset import implied_preset
from iirc_train.config.compose import compose, resolved_preset
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.places import is_same_benchmark
from iirc_train.methods.settings import method_configs
from iirc_train.run.directory import RunDirectory
from iirc_train.run.record import is_finished
from iirc_train.run.results import read_results
from iirc_train.sweep import Processes
from iirc_train.training.same_run import changes_to

_END = "<!-- end -->"
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


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


@dataclass(frozen=True)
class NamedRun:
    """A run of a table.

    Attributes:
        name: Name in what the program prints.
        command: Command that starts the run: ``iirc train …``.
        folder: The run's folder, which is also the ``--output`` of the command.
    """

    name: str
    command: str
    folder: Path


def train_all(runs: Sequence[NamedRun], folder: Path, data: Path, *, at_once: int = 1) -> None:
    """Train runs that are not finished, each on one thread; print a line as it starts and ends.

    A run that fails does not stop the others. On Ctrl-C the runs stop with checkpoints, from which
    the next call resumes them.

    Args:
        runs: The runs.
        folder: The folder that contains all of their folders.
        data: Shard folder that they train on.
        at_once: Number of runs that train at the same time.

    Raises:
        ShardError: ``data`` is not a finished shard folder.
        BenchmarkError: It lacks classes of a run's benchmark.
        InUseError: Another process trains runs in ``folder``.
        ConfigurationError: Runs failed, or were trained with other options than they have now.
        SystemExit: The program was interrupted.
    """
    _check_data(runs, data)
    failed = 0
    with (
        sole_user(folder),
        interrupted_in_one_line("run the same command again to resume"),
        ThreadPoolExecutor(at_once) as threads,
        Processes(Path.cwd(), variables=_ONE_THREAD) as processes,
    ):
        futures = {
            threads.submit(_train, run, f"run {number} of {len(runs)}", processes): run
            for number, run in enumerate(runs, 1)
        }
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except (IIRCError, OSError) as error:
                    failed += 1
                    _print(f"{futures[future].name}: {error}")
        except KeyboardInterrupt:
            if any(future.running() for future in futures):
                _print("stopping after the current steps; Ctrl-C again stops at once")
            raise
        finally:
            for future in futures:
                future.cancel()
    if failed:
        raise ConfigurationError(f"{failed} runs failed: the lines above say why")


def _check_data(runs: Sequence[NamedRun], data: Path) -> None:
    """Check what every run would fail for, one after the other."""
    manifest = ShardStore.open(data).manifest
    configs = (settings_of(run.command) for run in runs)
    for name, schedule in {(config.benchmark, config.schedule) for config in configs}:
        benchmark = load_benchmark(name)
        check_classes(benchmark, manifest, benchmark.tasks(schedule))


def _train(run: NamedRun, position: str, processes: Processes) -> None:
    if processes.starts_no_others:
        raise KeyboardInterrupt
    if is_finished(run.folder):
        check_made_by(run.command, run.folder)
        ending = "was finished before"
    else:
        _print(f"{run.name}: {position} starts; it prints to {log_of(run.folder)}")
        start_or_resume(run.command, run.folder, processes)
        ending = "is finished"
    _print(f"{run.name}: {position} {ending}: {read_results(run.folder).all_seen.round(3)}")


def _print(line: str) -> None:
    plain_console(stderr=True).print(one_line(line), soft_wrap=True)


def log_of(folder: Path) -> Path:
    """Return the file to which a run in a folder prints."""
    return folder.with_name(f"{folder.name}.log")


def start_or_resume(command: str, folder: Path, processes: Processes) -> None:
    """Start a run, or resume the run that its folder contains.

    What the run prints is appended to :func:`log_of` its folder.

    Args:
        command: Command that starts the run: ``iirc train …``.
        folder: The run's folder, which is also the ``--output`` of the command.
        processes: Starts the run, and stops it on an interrupt.

    Raises:
        ConfigurationError: The run failed, for example because the folder contains a run with
            other settings; the message has the last line that it printed.
        KeyboardInterrupt: The run was interrupted.
    """
    log = log_of(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    status = processes.run(shlex.split(command)[1:], log)
    if status in _INTERRUPTED:
        processes.start_no_others()
        raise KeyboardInterrupt
    if status:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise ConfigurationError(f"{folder}: exit status {status}: {last} (see {log})")


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
