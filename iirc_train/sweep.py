"""Many runs, planned before the first begins; each is a process, and what was begun is kept."""

import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from iirc_data.benchmarks import load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.config.compose import compose, method_of
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.network import AUTO
from iirc_train.methods.settings import method_configs
from iirc_train.models.networks import get_network
from iirc_train.run.directory import CONFIG_NAME, check_writable
from iirc_train.run.record import is_finished
from iirc_train.run.results import read_results
from iirc_train.runtime.lifeline import environment_with_lifeline
from iirc_train.runtime.program import OWN
from iirc_train.training.same_run import changes_to

LOG_NAME = "log.txt"
SETTINGS_NAME = "settings.yaml"
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep.

    Attributes:
        name: What tells it from the others.
        folder: Where it goes.
        config: Its configuration.
    """

    name: str
    folder: Path
    config: ExperimentConfig


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: The run.
        score: pw-JS on the test split over all classes, in [0, 1]; None where it failed.
        error: The last line that it printed, where it failed.
    """

    run: PlannedRun
    score: float | None = None
    error: str | None = None


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
    """Compose the configuration of every run, and compare it with what its folder holds.

    Args:
        output: Folder of the sweep.
        presets: Presets to begin with; none to begin with none.
        methods: Methods; none for the one of preset, file or settings. Likewise ``schedules``
            and ``seeds``.
        schedules: Numbers of schedules.
        seeds: Seeds.
        vary: Values of further settings, by name. Only methods that have a setting vary in it.
        file: YAML file of settings of all runs; they win over the presets'.
        overrides: Settings of all runs, which win over both.

    Returns:
        A run for each combination, once, in folders such as ``icarl_cnn/schedule_0/seed_0``, or
        ``icarl_cnn/lr_0.1/schedule_0/seed_0`` where ``lr`` varies.

    Raises:
        ConfigurationError: A setting is wrong, or a folder holds a run with other settings.
        BenchmarkError: There is no such benchmark or schedule.
    """
    check_writable(output)
    varied = _under_our_names(vary or {}, overrides or {})
    dimensions: list[Sequence[Any]] = [presets, methods, schedules, seeds]
    swept = [tuple(dict.fromkeys(values)) or (None,) for values in dimensions]
    swept_methods = {
        str(method_of(preset, file, dict(overrides or {}) | _given(method=method)))
        for preset, method in product(*swept[:2])
    }
    runs: dict[str, PlannedRun] = {}
    for preset, method, schedule, seed, *values in product(*swept, *varied.values()):
        settings = dict(overrides or {}) | _given(method=method, schedule=schedule, seed=seed)
        settings |= dict(zip(varied, values, strict=True))
        config = compose(preset, file, settings, methods=method_configs(), also_for=swept_methods)
        if config.network != AUTO:
            get_network(config.network)
        load_benchmark(config.benchmark).tasks(config.schedule)
        parts = [preset] if preset else []
        if method or not preset:
            parts.append(config.method)
        found = config.values()
        parts += [_folder_name(name, found[name]) for name in varied if name in found]
        parts += [f"schedule_{config.schedule}", f"seed_{config.seed}"]
        folder = output.absolute().joinpath(*parts)  # a cluster's workers are elsewhere
        run = PlannedRun("/".join(parts), folder, config.with_absolute_places())
        if runs.setdefault(run.name, run) != run:
            raise ConfigurationError(f"two of the varied values need the same folder, {run.name}")
    for run in runs.values():
        if (run.folder / CONFIG_NAME).exists():
            changes_to(run.folder, run.config)
    return list(runs.values())


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _under_our_names(
    vary: Mapping[str, Sequence[Any]], overrides: Mapping[str, Any]
) -> dict[str, Sequence[Any]]:
    names = {ExperimentConfig.published_names.get(name, name): name for name in vary}
    for name in names:
        if name in ("method", "schedule", "seed"):
            raise ConfigurationError(f"a sweep has an option for {name}: give --{name}, not --vary")
        if name in overrides:
            raise ConfigurationError(f"{name} is varied, and given once for all: leave one out")
    return {name: vary[given] for name, given in names.items()}


def _folder_name(setting: str, value: Any) -> str:
    """Return the name of the folder of runs that share a setting's value."""
    text = "_".join(map(str, value if isinstance(value, list) else [value]))
    return f"{setting}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', text)}"


class Processes:
    """Processes that are waited for on threads, and stop together.

    A context: where it is left by an exception, they are told to stop, and waited for; where
    that is interrupted, they are told once more.

    Args:
        folder: Where they run.
        program: What the Python interpreter is given to start them, before their arguments.
    """

    def __init__(self, folder: Path, program: Sequence[str] = OWN) -> None:
        self._folder = folder
        self._program = tuple(program)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def __reduce__(self) -> tuple[type["Processes"], tuple[Path, tuple[str, ...]]]:
        return Processes, (
            self._folder,
            self._program,
        )  # on another machine it has processes of its own

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
        # what a terminal or scheduler sent to all has reached them: the other is not a second one
        number = signal.SIGINT if error.args == (signal.SIGTERM,) else signal.SIGTERM
        try:
            for process in self._stop(number):
                process.wait()
        except KeyboardInterrupt:
            self._stop(number)
            raise

    def run(self, arguments: Sequence[str], log: Path) -> int:
        """Run the program, append what it prints to a file, and return its exit status."""
        command = [sys.executable, *self._program, *arguments]
        with log.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            with self._lock:
                if self._stopped:
                    return INTERRUPTED
                process = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=environment_with_lifeline(),
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
                self._running.add(process)
            try:
                with process:
                    return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def _stop(self, number: int) -> list[subprocess.Popen[bytes]]:
        """Tell all to stop, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(number)
            return list(self._running)


def run_all(
    runs: Iterable[PlannedRun],
    executor: Executor,
    done: Callable[[Outcome], None] = lambda outcome: None,
    stopping: Callable[[], None] = lambda: None,
    program: Sequence[str] = OWN,
) -> list[Outcome]:
    """Train every run that is not finished; one that fails does not stop the others.

    Args:
        runs: The runs.
        executor: Says how many at once, and where.
        done: Told of each run that ended.
        stopping: Called when interrupted, before it waits for the runs to stop.
        program: What the Python interpreter is given to start the program that trains a run, as
            :func:`~iirc_train.runtime.program.this_program` returns it.

    Returns:
        How each run ended, in the order of ``runs``.
    """
    outcomes: dict[str, Outcome] = {}
    with Processes(Path.cwd(), program) as processes:
        futures = {executor.submit(train, run, processes): run for run in runs}
        try:
            for future in as_completed(futures):
                run = futures[future]
                error = future.exception()  # not the run's own, of which train tells
                outcome = Outcome(run, error=str(error)) if error else future.result()
                outcomes[run.name] = outcome
                done(outcome)
        except KeyboardInterrupt:
            stopping()
            raise
        finally:
            for future in futures:
                future.cancel()
    return [outcomes[run.name] for run in futures.values()]


def train(run: PlannedRun, processes: Processes) -> Outcome:
    """Train a run in a process of its own, or go on with it; finished ones stay as they are.

    What the process prints goes to ``log.txt`` in the run's folder.

    Raises:
        ConfigurationError: What a finished run wrote is damaged.
    """
    if is_finished(run.folder):
        return Outcome(run, score=_score(run))
    if (run.folder / CONFIG_NAME).exists():
        changes = changes_to(run.folder, run.config)
        arguments = ["--resume", str(run.folder), *_options(changes)]
    else:
        run.folder.mkdir(parents=True, exist_ok=True)
        settings = run.folder / SETTINGS_NAME
        run.config.save(settings)
        arguments = ["--config", str(settings), "--output", str(run.folder)]
    log = run.folder / LOG_NAME
    status = processes.run(["train", *arguments], log)
    if status == 0:
        return Outcome(run, score=_score(run))
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if last.startswith("$ "):
        last = f"ended with status {status}, and printed nothing"
    return Outcome(run, error=last)


def _score(run: PlannedRun) -> float:
    return float(read_results(run.folder).all_seen[-1])


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as options of ``iirc train``."""
    words = {name: name.replace("_", "-") for name in settings}
    return [
        (f"--{words[name]}" if value else f"--no-{words[name]}")
        if isinstance(value, bool)
        else f"--{words[name]}={value}"
        for name, value in settings.items()
    ]
