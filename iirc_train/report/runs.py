"""Runs, found on the disk and grouped by what was tried."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.errors import BenchmarkError, ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.methods.settings import settings_of_run
from iirc_train.run.directory import CONFIG_NAME, METRICS_NAME, RunDirectory
from iirc_train.run.results import JS, PWJS, RunResults, read_evaluations, read_results

REPETITION_SETTINGS = frozenset({"schedule", "seed"})
"""What differs between repetitions of one experiment."""

MACHINE_SETTINGS = ExperimentConfig.free_settings() - {"benchmark"}
"""Where and how a run is computed, which is no part of what is tried."""


@dataclass(frozen=True)
class Run:
    """A run that has been evaluated at least once.

    Attributes:
        path: Its folder.
        config: Its settings.
        pwjs: Precision-weighted Jaccard similarity on the test split.
        js: Jaccard similarity on the test split.
    """

    path: Path
    config: ExperimentConfig
    pwjs: RunResults
    js: RunResults

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run's folder.

        Raises:
            ConfigurationError: It holds no run, a damaged one, or one without evaluation yet.
        """
        _, config = RunDirectory.open(path)
        config = settings_of_run(config)
        return cls(path, config, read_results(path), read_results(path, metric=JS))

    @cached_property
    def benchmark(self) -> Benchmark | None:
        """The benchmark; None where its definition is not at hand any more."""
        try:
            return load_benchmark(self.config.benchmark)
        except BenchmarkError:
            return None

    @property
    def benchmark_name(self) -> str:
        """The benchmark's name; that of its file where the definition is not at hand any more."""
        if self.benchmark is None:
            return Path(self.config.benchmark).stem
        return self.benchmark.name

    @property
    def n_tasks_done(self) -> int:
        """Number of tasks after which the run was evaluated."""
        return len(self.pwjs.all_seen)

    @property
    def n_tasks(self) -> int | None:
        """Number of tasks of the run's schedule; None where the benchmark is not at hand."""
        if self.benchmark is None:
            return None
        return len(self.benchmark.tasks(self.config.schedule, joint=self.config.joint))

    @property
    def finished(self) -> bool:
        """Whether all tasks are done; where the schedule is not at hand, it is taken so."""
        return self.n_tasks is None or self.n_tasks_done >= self.n_tasks


@dataclass(frozen=True)
class Group:
    """Runs that repeat one experiment.

    Attributes:
        name: The method, and of the settings those that tell it from the other groups.
        runs: The runs.
    """

    name: str
    runs: list[Run]

    @property
    def complete_runs(self) -> list[Run]:
        """The finished runs; all where none is finished."""
        return [run for run in self.runs if run.finished] or self.runs

    def results(self, metric: str = PWJS) -> list[RunResults]:
        """Return what each run scored, :data:`PWJS` or :data:`JS`."""
        return [run.pwjs if metric == PWJS else run.js for run in self.runs]


@dataclass(frozen=True)
class FoundRuns:
    """What folders hold.

    Attributes:
        runs: The runs that were evaluated.
        waiting: Folders of runs that have not finished their first task.
    """

    runs: list[Run]
    waiting: list[Path] = field(default_factory=list)

    def by_benchmark(self) -> dict[str, list[Group]]:
        """Return benchmark's name to its groups of runs, in the order in which they were found."""
        names = dict.fromkeys(run.benchmark_name for run in self.runs)
        return {
            name: group_runs([run for run in self.runs if run.benchmark_name == name])
            for name in names
        }


def find_runs(paths: Iterable[Path]) -> FoundRuns:
    """Read the runs that are, or lie below, the given folders; each once.

    Raises:
        ConfigurationError: A folder holds no run, a run is damaged, or none has been evaluated.
    """
    folders = dict.fromkeys(run.resolve() for path in paths for run in _run_folders(path))
    evaluated = {folder: bool(read_evaluations(folder)) for folder in folders}
    waiting = [folder for folder, done in evaluated.items() if not done]
    if len(waiting) == len(folders):
        raise ConfigurationError(
            f"{', '.join(map(str, waiting))}: no evaluation yet, the first task is not finished"
        )
    return FoundRuns([Run.read(folder) for folder, done in evaluated.items() if done], waiting)


def _run_folders(path: Path) -> list[Path]:
    if (path / CONFIG_NAME).exists():
        return [path]
    found = sorted(config.parent for config in path.rglob(CONFIG_NAME))
    if found := [folder for folder in found if (folder / METRICS_NAME).exists()]:
        return found
    if not path.is_dir():
        raise ConfigurationError(f"there is no folder {path}: give a run's folder, or one of runs")
    raise ConfigurationError(
        f"{path} holds no run: no folder in it has both {CONFIG_NAME} and {METRICS_NAME}"
    )


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs of one benchmark that differ in nothing but schedule, seed and machine.

    A group is called by its method, or as joint training. Where that is ambiguous, by those
    settings too that tell such groups apart: the fewest that do, switches before numbers.
    """
    left_out = REPETITION_SETTINGS | MACHINE_SETTINGS
    grouped: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        tried = {k: v for k, v in run.config.values().items() if k not in left_out}
        grouped.setdefault(tuple((k, str(v)) for k, v in tried.items()), []).append(run)
    groups = list(grouped.values())
    names = [""] * len(groups)
    kinds = [_kind(members[0].config) for members in groups]
    for kind in dict.fromkeys(kinds):
        places = [n for n, other in enumerate(kinds) if other == kind]
        settings = [
            {k: v for k, v in groups[n][0].config.values().items() if k not in left_out}
            for n in places
        ]
        for place, suffix in zip(places, _distinguishing(settings), strict=True):
            names[place] = f"{kind}{suffix}"
    return [Group(name, members) for name, members in zip(names, groups, strict=True)]


def _kind(config: ExperimentConfig) -> str:
    if config.joint:
        return "joint"
    return "incremental joint" if config.incremental_joint else config.method


def _distinguishing(settings: list[dict[str, Any]]) -> list[str]:
    """Return what to add to a method's name for each of its groups, so that they differ."""

    def is_ambiguous(names: list[str]) -> bool:
        return len({tuple(str(values.get(name)) for name in names) for values in settings}) < len(
            settings
        )

    def priority(name: str) -> tuple[bool, bool]:
        """Return what is larger for settings that are the better part of a name."""
        return all(name in values for values in settings), isinstance(settings[0].get(name), bool)

    kept = list(dict.fromkeys(name for values in settings for name in values))
    kept = [name for name in kept if len({str(values.get(name)) for values in settings}) > 1]
    for name in sorted(kept, key=priority):
        without = [other for other in kept if other != name]
        if not is_ambiguous(without):
            kept = without
    return [
        "".join(_said(name, values[name]) for name in kept if name in values) for values in settings
    ]


def _said(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f", {name}" if value else ""
    return f", {name} {value}"
