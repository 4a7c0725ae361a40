"""Beginning a run, going on with one, and doing one again."""

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.methods.settings import settings_of_run
from iirc_train.run.directory import BUFFER_NAME, CONFIG_NAME, RECORD_NAME, RunDirectory
from iirc_train.run.trackers import TENSORBOARD_ONLY, Tracking
from iirc_train.runtime.distributed import choose_device, process_group, rank
from iirc_train.runtime.lines import print_line
from iirc_train.training.components import Experiment
from iirc_train.training.provenance import (
    check_same_data,
    describe_data,
    is_finished,
    read_record,
    recorded_precision,
    tell_of_versions,
)
from iirc_train.training.same_run import changes_to
from iirc_train.training.trainer import Training

CHANGEABLE = ExperimentConfig.free_settings() | {"precision"}
"""Settings that may be given when a run goes on; asked for, another precision is taken."""


def run_experiment(
    config: ExperimentConfig,
    output: Path,
    console: Console,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    reference: Mapping[str, Any] | None = None,
) -> Path:
    """Train a method through all tasks of a schedule, evaluating after each.

    Args:
        config: The run's configuration.
        output: Folder for the run; must not hold one yet.
        console: Where progress is shown.
        tracking: Who else follows the run.
        reference: Record of a run that saw the same data, as
            :func:`~iirc_train.training.provenance.read_record` gives it; checked before training.

    Returns:
        The run's folder.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """
    tracking.check_installed()  # before there is a folder that a second try would not begin in
    config = config.with_absolute_places()
    precision = None
    if reference is not None and config.precision == "auto":
        precision = recorded_precision(reference)
    with process_group(choose_device(config.device)), RunDirectory.held_for_new_run(output):
        experiment = Experiment(config, output / BUFFER_NAME, precision)
        if reference is not None:
            check_same_data(reference, describe_data(experiment.store, experiment.splits))
            if rank() == 0:
                tell_of_versions(reference, console)
        run = RunDirectory.create(output, experiment.config)
        Training(experiment, run).run(console, tracking)
    return output


def resume_experiment(
    output: Path,
    console: Console,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Go on with a run from its last checkpoint; a finished run is left as it is.

    Args:
        output: The run's folder.
        console: Where progress is shown.
        tracking: Who else follows the run.
        changes: Settings with which it goes on instead of its own, :data:`CHANGEABLE` ones: the
            new place of the same data and benchmark, the machine, the precision. They are kept
            for the next time.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: The folder holds no run, its data is not where it was, or a setting
            may not change.
        CheckpointError: The checkpoint is damaged, or of other data.
        IIRCError: Benchmark or data are wrong.
    """
    run, begun = RunDirectory.open(output)
    begun = settings_of_run(begun)
    config, precision = _changed(begun, changes or {})
    if is_finished(output) and config.missing_places():
        return output  # it needs its data no more
    _check_places(config, changes or {})
    with process_group(choose_device(config.device)), run.held():
        experiment = Experiment(config, output / BUFFER_NAME, precision)
        if not run.checkpoint.exists() and (output / RECORD_NAME).exists():
            found = describe_data(experiment.store, experiment.splits)
            check_same_data(read_record(output), found)
        training = Training(experiment, run)
        if config != begun and not training.is_finished:
            run.remember(config)
        training.run(console, tracking)
    return output


def repeat_experiment(
    run: Path,
    output: Path,
    console: Console,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Train once more what a run trained; on the same machine the results are the same bits.

    Args:
        run: Folder of the run.
        output: Folder for the new run.
        console: Where progress is shown, and whether versions differ.
        tracking: Who else follows the run.
        changes: See :func:`resume_experiment`.

    Returns:
        The new run's folder.

    Raises:
        ConfigurationError: The folder holds no run, or the data is another now.
        IIRCError: Benchmark or data are wrong.
    """
    begun = settings_of_run(RunDirectory.open(run)[1])
    config, precision = _changed(begun, changes or {})
    _check_places(config, changes or {})
    if precision is not None:
        config = config.model_copy(update={"precision": precision})
    record = read_record(run)
    return run_experiment(config, output, console, tracking=tracking, reference=record)


def continue_experiment(config: ExperimentConfig, output: Path, console: Console) -> Path:
    """Begin a run, or go on with the one that was begun so; a finished run is left as it is.

    Args:
        config: The run's configuration.
        output: Folder for the run.
        console: Where progress is shown.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: The folder holds a run with other settings.
        IIRCError: Configuration, benchmark or data are wrong.
    """
    if not (output / CONFIG_NAME).exists():
        return run_experiment(config, output, console)
    changes = changes_to(output, config.with_absolute_places())
    if is_finished(output):
        print_line(console, f"{output} is finished already")
        return output
    return resume_experiment(output, console, changes=changes)


def check_changeable(option: str, names: Iterable[str]) -> None:
    """Check that settings may be given for a run that was begun.

    Args:
        option: How the run is given, for the error.
        names: The settings' names.

    Raises:
        ConfigurationError: One of them defines the run.
    """
    if wrong := [name for name in names if name not in CHANGEABLE]:
        options = [f"--{name.replace('_', '-')}" for name in sorted(CHANGEABLE)]
        raise ConfigurationError(
            f"{option} takes the settings of the run, not {', '.join(wrong)}: give no option but "
            f"{', '.join(options)}, --tensorboard and --wandb-project"
        )


def _changed(
    begun: ExperimentConfig, changes: Mapping[str, Any]
) -> tuple[ExperimentConfig, str | None]:
    """Return the configuration with changes, and the precision where it is among them.

    The precision with which a run goes on stands in its checkpoint; its configuration keeps the
    one that it began with.
    """
    check_changeable("a run that was begun", changes)
    changed = ExperimentConfig.parse({**begun.values(), **changes}, own=begun.values())
    config = changed.model_copy(update={"precision": begun.precision}).with_absolute_places()
    return config, changed.precision if "precision" in changes else None


def _check_places(config: ExperimentConfig, given: Container[str]) -> None:
    for name, path in config.missing_places().items():
        if name not in given:
            raise ConfigurationError(
                f"the run's {name} is not at {path}: if it moved, say where it is with --{name}"
            )
