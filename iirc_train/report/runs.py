"""Finds runs on disk and groups those that repeat one experiment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.errors import BenchmarkError, ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.image_preset import benchmark_as_shown
from iirc_train.config.network import image_size, with_named_network
from iirc_train.methods.settings import settings_of_run
from iirc_train.metrics import is_of_hierarchy, shown_labels
from iirc_train.report.recorded import BRANCH, CHANGES, REPETITION_SETTINGS, recorded_settings
from iirc_train.run.directory import (
    CONFIG_NAME,
    METRICS_NAME,
    RECORD_NAME,
    RunDirectory,
    in_hidden_folder,
)
from iirc_train.run.record import is_finished, read_record
from iirc_train.run.results import (
    PWJS,
    RunResults,
    computed_metrics,
    main_metric,
    read_evaluations,
    read_some_evaluations,
    results_of,
)

MACHINE_SETTINGS = ExperimentConfig.free_settings() - {"benchmark"}
"""Settings for the machine and for paths, which do not define an experiment."""


@dataclass(frozen=True)
class Run:
    """A run that has been evaluated at least once.

    Attributes:
        path: Its folder.
        config: Its settings.
        results: Scores on the test split, by name of the metric: of those that are shown or of the
            hierarchy, the ones that the run computed.
    """

    path: Path
    config: ExperimentConfig
    results: dict[str, RunResults]

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run's folder.

        Raises:
            ConfigurationError: It contains no run, or the run is damaged or not evaluated yet.
        """
        _, config = RunDirectory.open(path)
        config = settings_of_run(config)
        records = read_some_evaluations(path)
        computed = {PWJS, *computed_metrics(records)}
        metrics = [*shown_labels(computed), *sorted(filter(is_of_hierarchy, computed))]
        return cls(path, config, results_of(records, path, dict.fromkeys(metrics)))

    @property
    def main(self) -> RunResults:
        """Scores on the test split by the metric that the run is judged by."""
        return self.results[main_metric(self.results)]

    @cached_property
    def benchmark(self) -> Benchmark | None:
        """The benchmark; None if its definition is no longer available."""
        try:
            return load_benchmark(self.config.benchmark)
        except BenchmarkError:
            return None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings, with what the record adds.

        The network is given by name if the benchmark is available.
        """
        values = self.config.values()
        if (self.path / RECORD_NAME).exists():
            values |= recorded_settings(read_record(self.path))
        if self.benchmark is None:
            return values
        shown = benchmark_as_shown(self.config.benchmark, self.config.image_preset)
        return with_named_network(values, image_size(shown))

    @property
    def benchmark_name(self) -> str:
        """The benchmark's name; if its definition is no longer available, the name of its file."""
        if self.benchmark is None:
            return Path(self.config.benchmark).stem
        return self.benchmark.name

    @property
    def n_tasks_done(self) -> int:
        """Number of finished tasks: those after which the run was evaluated."""
        return len(self.main.all_seen)

    @property
    def n_tasks(self) -> int | None:
        """Number of tasks of the run's schedule; None if the benchmark is not available."""
        if self.benchmark is None:
            return None
        return len(self.benchmark.tasks(self.config.schedule, joint=self.config.joint))

    @property
    def finished(self) -> bool:
        """Whether the run was trained to its end.

        Its record states it. A folder with results only counts as finished if all tasks of the
        schedule are evaluated, or if the schedule is not available.
        """
        if (self.path / RECORD_NAME).exists():
            return is_finished(self.path)
        return self.n_tasks is None or self.n_tasks_done >= self.n_tasks


@dataclass(frozen=True)
class Group:
    """Runs that repeat one experiment.

    Attributes:
        name: The method, followed by the settings that distinguish the group from others.
        runs: The runs.
    """

    name: str
    runs: list[Run]

    @property
    def complete_runs(self) -> list[Run]:
        """The finished runs; all runs if none is finished."""
        return [run for run in self.runs if run.finished] or self.runs

    def results(self, metric: str = PWJS) -> list[RunResults]:
        """Return the scores of each run that computed a metric."""
        return [run.results[metric] for run in self.runs if metric in run.results]


@dataclass(frozen=True)
class FoundRuns:
    """The runs in some folders.

    Attributes:
        runs: The runs with at least one evaluation.
        waiting: Folders of runs that have not finished their first task.
        repeated: Folders of runs that differ from one in :attr:`runs` at most in the machine, so
            counting both would count one schedule and seed twice; with the folder of that one.
    """

    runs: list[Run]
    waiting: list[Path] = field(default_factory=list)
    repeated: dict[Path, Path] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return a line for each folder that was left out, with the reason."""
        return [
            *(f"no evaluation yet: {folder}" for folder in self.waiting),
            *(
                f"left out, same experiment, schedule and seed as {other}: {folder}"
                for folder, other in self.repeated.items()
            ),
        ]

    def by_benchmark(self) -> dict[str, list[Group]]:
        """Return the groups of each benchmark by its name, in the order of :attr:`runs`."""
        names = dict.fromkeys(run.benchmark_name for run in self.runs)
        return {
            name: group_runs([run for run in self.runs if run.benchmark_name == name])
            for name in names
        }


def find_runs(paths: Iterable[Path]) -> FoundRuns:
    """Read the runs at or below the given folders, each run once.

    Raises:
        ConfigurationError: A folder contains no run, a run is damaged, or no run is evaluated yet.
    """
    folders = dict.fromkeys(run.resolve() for path in paths for run in _run_folders(path))
    evaluated = {folder: bool(read_evaluations(folder)) for folder in folders}
    waiting = [folder for folder, done in evaluated.items() if not done]
    if len(waiting) == len(folders):
        raise ConfigurationError(
            f"{', '.join(map(str, waiting))}: no evaluation yet, because the first task is not "
            "finished"
        )
    runs = [Run.read(folder) for folder, done in evaluated.items() if done]
    counted: dict[Any, Run] = {}
    for run in sorted(runs, key=lambda run: not run.finished):
        counted.setdefault(_identity(run), run)
    repeated = {
        run.path: first for run in runs if (first := counted[_identity(run)].path) != run.path
    }
    return FoundRuns([run for run in runs if run.path not in repeated], waiting, repeated)


def _identity(run: Run) -> tuple[str, ...]:
    """Return what two runs share whose results differ only by the machine."""
    return (
        run.benchmark_name,
        *(str(run.config.values()[name]) for name in sorted(REPETITION_SETTINGS)),
        *map(str, _experiment(run).items()),
    )


def _experiment(run: Run) -> dict[str, Any]:
    """Return the settings that define a run's experiment."""
    left_out = REPETITION_SETTINGS | MACHINE_SETTINGS
    return {name: value for name, value in run.settings.items() if name not in left_out}


def _run_folders(path: Path) -> list[Path]:
    if (path / CONFIG_NAME).exists():
        return [path]
    configs = [file for file in path.rglob(CONFIG_NAME) if not in_hidden_folder(file, path)]
    found = sorted(config.parent for config in configs)
    if found := [folder for folder in found if (folder / METRICS_NAME).exists()]:
        return found
    if not path.is_dir():
        raise ConfigurationError(
            f"there is no folder {path}: give a run's folder, or a folder of runs"
        )
    raise ConfigurationError(
        f"{path} contains no run: no folder in it has both {CONFIG_NAME} and {METRICS_NAME}"
    )


def metric_of_groups(groups: Iterable[Group]) -> str:
    """Return the metric that all runs of some groups can be judged by."""
    computed = [set(run.results) for group in groups for run in group.runs]
    return main_metric(set.intersection(*computed))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs of one benchmark that differ only in schedule, seed and machine.

    Data and precision are compared as the records of the runs state them, wherever the data is and
    whatever the setting says.

    Branches are grouped if they left repetitions of one experiment after the same task with the
    same changes. A new seed counts as a change: branches of one run that differ only in seed share
    tasks, so each is a group of its own.

    A group is named after its method, or after joint training; a group of branches, also after the
    task after which they left another run. If groups would share a name, the fewest settings that
    distinguish them are added, preferably switches.
    """
    grouped: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        tried = tuple((name, str(value)) for name, value in _experiment(run).items())
        grouped.setdefault(tried, []).append(run)
    groups = list(grouped.values())
    names = [""] * len(groups)
    kinds = [_kind(members[0]) for members in groups]
    for kind in dict.fromkeys(kinds):
        places = [n for n, other in enumerate(kinds) if other == kind]
        settings = [_experiment(groups[n][0]) for n in places]
        for place, suffix in zip(places, _distinguishing(settings), strict=True):
            names[place] = f"{kind}{suffix}"
    return [Group(name, members) for name, members in zip(names, groups, strict=True)]


def _kind(run: Run) -> str:
    if run.config.joint:
        return "joint"
    kind = "incremental joint" if run.config.incremental_joint else run.config.method
    return f"{kind}, {BRANCH} {run.settings[BRANCH]}" if BRANCH in run.settings else kind


def _distinguishing(settings: list[dict[str, Any]]) -> list[str]:
    """Return for each group of a method the suffix that makes its name unique."""

    def is_ambiguous(names: list[str]) -> bool:
        return len({tuple(str(values.get(name)) for name in names) for values in settings}) < len(
            settings
        )

    def priority(name: str) -> tuple[bool, bool, bool]:
        """Return what is larger for settings that are the better part of a name."""
        is_in_all = all(name in values for values in settings)
        return name != CHANGES, is_in_all, isinstance(settings[0].get(name), bool)

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
