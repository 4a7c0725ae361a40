"""Sweeps: many runs, planned before the first one starts, each in a process of its own."""

import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from iirc_data.benchmarks import load_benchmark
from iirc_data.cluster.attempt import is_abandoned, patience, stop_if_abandoned
from iirc_data.errors import ConfigurationError
from iirc_data.locks import sole_user, sole_writer_of
from iirc_train.config.auto_preset import AUTO_PRESET, implied_preset
from iirc_train.config.compose import compose, method_of, resolved_preset
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.network import AUTO
from iirc_train.methods.settings import check_has_effect, method_configs, settings_for
from iirc_train.models.networks import get_network
from iirc_train.run.directory import CONFIG_NAME, RunDirectory, check_writable
from iirc_train.run.record import is_finished
from iirc_train.run.results import read_results
from iirc_train.runtime.gpus import SharedGpus, visible_gpus
from iirc_train.runtime.lifeline import environment_with_lifeline
from iirc_train.runtime.program import OWN
from iirc_train.training.same_run import changes_to

LOG_NAME = "log.txt"
SETTINGS_NAME = "settings.yaml"
_POLL_SECONDS = 0.5
INTERRUPTED = 128 + signal.SIGINT
_INTERRUPTED_BY = {
    status: number
    for number in (signal.SIGINT, signal.SIGTERM)
    for status in (128 + number, -number)  # a process that handled the signal, or did not
}


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep.

    Attributes:
        name: Unique name, such as ``"icarl_cnn/schedule_0/seed_0"``.
        folder: Folder of the run.
        config: Configuration of the run.
        preset: Name of the preset that the configuration started from; None for none.
    """

    name: str
    folder: Path
    config: ExperimentConfig
    preset: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        run: The run.
        score: Score on the test split over all classes, in [0, 1]; None if the run failed.
        error: Last line that the run printed; None if the run did not fail.
        metric: Name of the metric of the score; None if the run failed.
    """

    run: PlannedRun
    score: float | None = None
    error: str | None = None
    metric: str | None = None


def plan(
    output: Path,
    *,
    presets: Sequence[str] = (),
    methods: Sequence[str] = (),
    schedules: Sequence[int] = (),
    seeds: Sequence[int] = (),
    vary: Mapping[str, Sequence[Any]] | None = None,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[PlannedRun]:
    """Compose the configuration of every run, and compare it with the run in its folder, if any.

    Args:
        output: Folder of the sweep.
        presets: Presets to start from.
        methods: Methods. If empty, preset, file or ``overrides`` determine the method; the same
            holds for ``schedules`` and ``seeds``.
        schedules: Indices of schedules.
        seeds: Seeds.
        vary: Name of a further setting to its values. Methods that lack the setting are trained
            without it.
        file: YAML file with settings for all runs; they override the presets'.
        overrides: Settings for all runs; they override both.

    Returns:
        One run per combination, in folders such as ``icarl_cnn/schedule_0/seed_0``, or
        ``icarl_cnn/lr_0.1/schedule_0/seed_0`` if ``lr`` varies.

    Raises:
        ConfigurationError: A setting is wrong, or a folder contains a run with other settings.
        BenchmarkError: A benchmark or schedule does not exist.
    """
    check_writable(output)
    varied = _under_our_names(vary or {}, overrides or {})
    dimensions: list[Sequence[Any]] = [presets, methods, schedules, seeds]
    swept = [tuple(dict.fromkeys(values)) or (None,) for values in dimensions]
    swept_methods = {
        str(method_of(preset, file, dict(overrides or {}) | _given(method=method)))
        for preset, method in product(*swept[:2])
    }
    benchmark_of = cache(load_benchmark)
    runs: dict[str, PlannedRun] = {}
    for preset, method, schedule, seed, *values in product(*swept, *varied.values()):
        settings = dict(overrides or {}) | _given(method=method, schedule=schedule, seed=seed)
        settings |= dict(zip(varied, values, strict=True))
        if preset is None and file is None:
            preset = implied_preset(settings)
        chosen = resolved_preset(preset, file, settings)
        config = compose(chosen, file, settings, methods=method_configs(), also_for=swept_methods)
        if config.network != AUTO:
            get_network(config.network)
        benchmark_of(config.benchmark).tasks(config.schedule)
        named = preset if preset != AUTO_PRESET else None  # auto: the method says which
        parts = [named] if named else []
        if method or not named:
            parts.append(config.method)
        found = config.values()
        parts += [_folder_name(name, found[name]) for name in varied if name in found]
        parts += [f"schedule_{config.schedule}", f"seed_{config.seed}"]
        folder = output.absolute().joinpath(*parts)  # the workers of a cluster run in other folders
        run = PlannedRun("/".join(parts), folder, config.with_absolute_places(), chosen)
        if runs.setdefault(run.name, run) != run:
            raise ConfigurationError(f"two of the varied values map to the same folder, {run.name}")
    for run in runs.values():
        if (run.folder / CONFIG_NAME).exists():
            changes_to(run.folder, run.config)
        else:
            setup = benchmark_of(run.config.benchmark).setup
            check_has_effect(settings_for(run.config, setup))
    return list(runs.values())


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _under_our_names(
    vary: Mapping[str, Sequence[Any]], overrides: Mapping[str, Any]
) -> dict[str, Sequence[Any]]:
    names = {ExperimentConfig.published_names.get(name, name): name for name in vary}
    for name in names:
        if name in ("method", "schedule", "seed"):
            raise ConfigurationError(f"--vary does not vary {name}: give --{name}")
        if name in overrides:
            raise ConfigurationError(f"{name} is given both to --vary and for all runs: remove one")
    return {name: vary[given] for name, given in names.items()}


def _folder_name(setting: str, value: Any) -> str:
    """Return the name of the folder for runs with this value of a setting."""
    text = "_".join(map(str, value if isinstance(value, list) else [value]))
    return f"{setting}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', text)}"


class Processes:
    """Processes that threads wait for, and that stop together.

    A context manager. On an exception, it signals all processes to stop and waits for them. If
    that wait is interrupted, it signals them a second time.

    Args:
        folder: Working directory of the processes.
        program: Arguments of the Python interpreter that start the program; the program's own
            arguments follow.
        gpus: GPUs of this machine, of which each process that asks for one gets one.
        variables: Environment variables of the processes, beside those of this one.
    """

    def __init__(
        self,
        folder: Path,
        program: Sequence[str] = OWN,
        gpus: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._program = tuple(program)
        self._gpus = SharedGpus(gpus)
        self._variables = dict(variables or {})
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def __reduce__(self) -> tuple[type["Processes"], tuple[Any, ...]]:
        # a copy on another machine starts with no running process, and with the GPUs of its worker
        return Processes, (self._folder, self._program, (), self._variables)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        # a terminal or scheduler may have sent them the same signal already, and a second one of
        # a kind means "at once": send the other kind
        number = signal.SIGINT if error.args == (signal.SIGTERM,) else signal.SIGTERM
        try:
            for process in self._stop(number):
                process.wait()
        except KeyboardInterrupt:
            self._stop(number)
            raise

    def run(self, arguments: Sequence[str], log: Path, *, on_one_gpu: bool = False) -> int:
        """Run the program, append its output to a file, and return its exit status."""
        command = [sys.executable, *self._program, *arguments]
        own_gpu: AbstractContextManager[Mapping[str, str]] = nullcontext({})
        if on_one_gpu:
            own_gpu = self._gpus.one()
        with (
            log.open("a", encoding="utf-8", errors="surrogateescape") as file,
            own_gpu as variables,
        ):
            words = [f"{name}={value}" for name, value in variables.items()]
            file.write(f"$ {shlex.join([*words, *command])}\n")
            file.flush()
            with self._lock:
                if self._stopped:
                    return INTERRUPTED
                process = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env={**environment_with_lifeline(), **self._variables, **variables},
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
                self._running.add(process)
            try:
                with process:
                    return _status(process)
            finally:
                with self._lock:
                    self._running.discard(process)

    def start_no_others(self) -> None:
        """Let later calls of :meth:`run` start no process."""
        with self._lock:
            self._stopped = True

    @property
    def starts_no_others(self) -> bool:
        """Whether no further process is started."""
        return self._stopped

    def _stop(self, number: int) -> list[subprocess.Popen[bytes]]:
        """Signal all processes to stop, and start no others."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(number)
            return list(self._running)


def _status(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process ends; stop it if the cluster no longer waits for it."""
    while not is_abandoned():
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_POLL_SECONDS)
    process.send_signal(signal.SIGTERM)  # it writes a checkpoint, from which the next one resumes
    return process.wait()


def run_all(
    runs: Iterable[PlannedRun],
    executor: Executor,
    done: Callable[[Outcome], None] = lambda outcome: None,
    stopping: Callable[[], None] = lambda: None,
    program: Sequence[str] = OWN,
) -> list[Outcome]:
    """Train every run that is not finished; a run that fails does not stop the others.

    A run that ends because it was interrupted stops all of them, as an interrupt of this process
    does. In a program that a script starts in the background, only the runs may notice Ctrl-C.

    On a machine with several GPUs, each run gets the GPU with the fewest runs.

    Args:
        runs: The runs.
        executor: Determines how many runs train at the same time, and where.
        done: Called with the outcome of each run as it ends.
        stopping: Called on an interrupt, before waiting for the runs to stop.
        program: Arguments of the Python interpreter that start the program that trains a run, from
            :func:`~iirc_train.runtime.program.this_program`.

    Returns:
        The outcome of each run, in the order of ``runs``.

    Raises:
        KeyboardInterrupt: This process or one of the runs was interrupted.
    """
    runs = list(runs)
    for folder in {_sweep_folder(run) for run in runs}:
        folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    of_a_run: BaseException | None = None
    with Processes(Path.cwd(), program, visible_gpus()) as processes:
        futures = {executor.submit(train, run, processes): run for run in runs}
        try:
            for future in as_completed(futures):
                run = futures[future]
                error = future.exception()  # of the executor; train returns those of runs
                if isinstance(error, KeyboardInterrupt):
                    of_a_run = error
                    raise error
                outcome = Outcome(run, error=str(error)) if error else future.result()
                outcomes[run.name] = outcome
                done(outcome)
        except KeyboardInterrupt as interrupt:
            if interrupt is not of_a_run or any(future.running() for future in futures):
                stopping()
            raise
        finally:
            for future in futures:
                future.cancel()
    return [outcomes[run.name] for run in futures.values()]


def checkpoint_time(run: PlannedRun, *others: object) -> float:
    """Return when the last checkpoint of a run was written, in seconds; 0 if there is none."""
    try:
        return RunDirectory(run.folder).checkpoint.stat().st_mtime
    except OSError:
        return 0.0


def train(run: PlannedRun, processes: Processes) -> Outcome:
    """Train or resume a run in a process of its own; a finished run is left unchanged.

    The output of the process is appended to ``log.txt`` in the run's folder. On a cluster, waits
    for a process of an earlier attempt that the cluster believes to be dead.

    Raises:
        ConfigurationError: The results of a finished run are damaged, or this machine does not see
            the folder of the sweep.
        InUseError: Another command trains the run.
        AbandonedError: The cluster no longer waits for this attempt.
        KeyboardInterrupt: The run was interrupted, not on a cluster: there, only its worker was.
    """
    if processes.starts_no_others:
        raise KeyboardInterrupt
    if not _sweep_folder(run).is_dir():
        raise ConfigurationError(
            f"{socket.gethostname()} does not see {_sweep_folder(run)}: give an output folder that "
            "all machines share"
        )
    if is_finished(run.folder):
        return _finished(run)
    run.folder.mkdir(parents=True, exist_ok=True)
    with sole_writer_of(run.folder / LOG_NAME, patience=patience(), check=stop_if_abandoned):
        if patience():  # the process of a dead worker ends soon after it
            with sole_user(run.folder, patience=patience(), check=stop_if_abandoned):
                pass
        status = _train(run, processes)
        stop_if_abandoned()
    if status == 0:
        return _finished(run)
    if (number := _INTERRUPTED_BY.get(status)) is not None and not patience():
        processes.start_no_others()
        raise KeyboardInterrupt(number)
    lines = (run.folder / LOG_NAME).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if last.startswith("$ "):
        last = f"ended with status {status} and printed nothing"
    return Outcome(run, error=last)


def _train(run: PlannedRun, processes: Processes) -> int:
    """Start or resume a run in a process, and return its exit status."""
    if is_finished(run.folder):
        return 0
    if (run.folder / CONFIG_NAME).exists():
        changes = changes_to(run.folder, run.config)
        arguments = ["--resume", str(run.folder), *_options(changes)]
    else:
        settings = run.folder / SETTINGS_NAME
        run.config.save(settings)
        # the file has all settings; the preset is for the record
        of_preset = [] if run.preset is None else ["--preset", run.preset]
        arguments = [*of_preset, "--config", str(settings), "--output", str(run.folder)]
    on_one_gpu = run.config.device in ("auto", "cuda")  # not cuda:1
    return processes.run(["train", *arguments], run.folder / LOG_NAME, on_one_gpu=on_one_gpu)


def _sweep_folder(run: PlannedRun) -> Path:
    return run.folder.parents[run.name.count("/")]


def _finished(run: PlannedRun) -> Outcome:
    results = read_results(run.folder)
    return Outcome(run, score=float(results.all_seen[-1]), metric=results.metric)


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as options of ``iirc train``."""
    options = []
    for name, value in settings.items():
        word = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{word}" if value else f"--no-{word}")
        elif isinstance(value, Mapping):  # the place of each dataset
            options += [f"--{word}={dataset}={place}" for dataset, place in value.items()]
        else:
            options.append(f"--{word}={value}")
    return options
