"""Starting, resuming and repeating runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.places import moved, read_data
from iirc_train.methods.settings import check_has_effect, settings_of_run
from iirc_train.run.directory import BUFFER_NAME, CONFIG_NAME, RECORD_NAME, RunDirectory
from iirc_train.run.record import (
    check_same_data,
    check_same_weights,
    is_finished,
    note_versions,
    read_record,
    recorded_precision,
)
from iirc_train.run.trackers import TENSORBOARD_ONLY, Tracking
from iirc_train.runtime.distributed import (
    choose_device,
    is_first_process,
    of_first_process,
    rank,
)
from iirc_train.runtime.notes import logger, notes_on
from iirc_train.runtime.process_group import process_group
from iirc_train.training.components import Experiment
from iirc_train.training.same_run import changes_to
from iirc_train.training.trainer import Training

CHANGEABLE = ExperimentConfig.free_settings() | {"precision"}
"""Settings that a resumed run may change."""

REPLACEABLE = CHANGEABLE | {"weights"}
"""Settings that a repeated run may change: the digest of its weights is checked."""


def run_experiment(
    config: ExperimentConfig,
    output: Path,
    console: Console | None = None,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    reference: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> Path:
    """Train a method through all tasks of a schedule, evaluating after each.

    Args:
        config: The run's configuration.
        output: Folder for the run; must not contain a run.
        console: Where progress and notes are shown; None logs them to ``iirc_train``.
        tracking: What else follows the run.
        reference: Record of a run that saw the same data, as
            :func:`~iirc_train.run.record.read_record` returns it; checked before training.
        preset: Name of the preset that the configuration started from, for the record.

    Returns:
        The run's folder.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """
    tracking.check_installed()  # before a folder exists, which a second attempt would refuse
    if reference is None:
        check_has_effect(config)
    config = config.with_absolute_places()
    precision = None
    if reference is not None and config.precision == "auto":
        precision = recorded_precision(reference)
    with (
        notes_on(console),
        process_group(choose_device(config.device)),
        RunDirectory.held_for_new_run(output),
        Experiment(config, output / BUFFER_NAME, precision) as experiment,
    ):
        _check_alike(experiment)
        if preset is not None and is_first_process():
            logger.info("preset: %s", preset)
        if reference is not None:
            check_same_data(reference, experiment.seen_data)
            check_same_weights(reference, experiment.weights_digest)
            if rank() == 0:
                note_versions(reference)
        directory = RunDirectory.create(output, experiment.config)
        training = Training(experiment, directory, preset)
        training.restore()
        training.run(console, tracking)
    return output


def resume_experiment(
    output: Path,
    console: Console | None = None,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Resume a run from its last checkpoint; a finished run is not changed.

    Args:
        output: The run's folder.
        console: Where progress and notes are shown; None logs them to ``iirc_train``.
        tracking: What else follows the run.
        changes: Settings, from :data:`CHANGEABLE`, that replace the run's own: new places of the
            same data and benchmark, the machine, the precision. They are saved with the run.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: The folder contains no run, its data has moved, or a setting may not
            change.
        CheckpointError: The checkpoint is damaged, or belongs to other data.
        IIRCError: Benchmark or data are wrong.
    """
    run, saved = RunDirectory.open(output)
    saved = settings_of_run(saved)
    config, precision = _changed(saved, changes or {})
    if is_finished(output) and config.missing_places():
        return output  # a finished run no longer needs its data
    check_places(config, changes or {})
    with (
        notes_on(console),
        process_group(choose_device(config.device)),
        run.held(),
        Experiment(
            config,
            output / BUFFER_NAME,
            precision,
            loads_weights=not run.checkpoint.exists(),
        ) as experiment,
    ):
        _check_alike(experiment)
        if not run.checkpoint.exists() and (output / RECORD_NAME).exists():
            record = read_record(output)
            check_same_data(record, experiment.seen_data)
            if "parent" in record:
                raise CheckpointError(
                    f"{output} is a branch of {record['parent']['run']}, and its {run.checkpoint} "
                    "is missing: restore that file, or branch again in another folder"
                )
            check_same_weights(record, experiment.weights_digest)
        training = Training(experiment, run)
        training.restore()
        if rank() == 0:
            _note_position(training)
        if config != saved and not training.is_finished:
            run.remember(config)
        training.run(console, tracking)
    return output


def repeat_experiment(
    run: Path,
    output: Path,
    console: Console | None = None,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Train a run again; on the same machine the results are bitwise equal.

    Calling it again resumes an interrupted repetition.

    Args:
        run: Folder of the run.
        output: Folder for the new run.
        console: Where progress and notes are shown; None logs them to ``iirc_train``.
        tracking: What else follows the run.
        changes: Settings, from :data:`REPLACEABLE`, that replace the run's own.

    Returns:
        The new run's folder.

    Raises:
        ConfigurationError: The folder contains no run, its data or weights have changed, or
            ``output`` contains a run with other settings.
        IIRCError: Benchmark or data are wrong.
    """
    saved = settings_of_run(RunDirectory.open(run)[1])
    config, precision = _changed(saved, changes or {}, REPLACEABLE)
    check_places(config, changes or {})
    if precision is not None:
        config = config.model_copy(update={"precision": precision})
    record = read_record(run)
    if "parent" in record:
        parent = record["parent"]
        raise ConfigurationError(
            f"{run} is a branch of {parent['run']} after task {parent['task']}: repeat it with "
            f"--from {parent['run']} --from-task {parent['task']} and the same settings"
        )
    return continue_experiment(
        config, output, console, tracking=tracking, reference=record, preset=record.get("preset")
    )


def continue_experiment(
    config: ExperimentConfig,
    output: Path,
    console: Console | None = None,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    reference: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> Path:
    """Start a run, or resume the run in the folder; a finished run is not changed.

    Args:
        config: The run's configuration.
        output: Folder for the run.
        console: Where progress and notes are shown; None logs them to ``iirc_train``.
        tracking: What else follows the run.
        reference: See :func:`run_experiment`.
        preset: See :func:`run_experiment`.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: The folder contains a run with other settings.
        IIRCError: Configuration, benchmark or data are wrong.
    """
    config = config.with_absolute_places()
    if (output / CONFIG_NAME).exists() and is_finished(output):
        changes_to(output, config)
        with notes_on(console):
            if is_first_process():
                logger.info("%s is finished already", output)
        return output
    device = choose_device(config.device)
    with process_group(device):
        # the first process may already create the folder while another one looks
        if not of_first_process((output / CONFIG_NAME).exists(), device):
            return run_experiment(
                config, output, console, tracking=tracking, reference=reference, preset=preset
            )
        changes = changes_to(output, config)
        precision = None if reference is None else recorded_precision(reference)
        if precision is not None and config.precision == "auto":
            changes["precision"] = precision
        return resume_experiment(output, console, tracking=tracking, changes=changes)


def check_changeable(
    option: str, names: Iterable[str], changeable: frozenset[str] = CHANGEABLE
) -> None:
    """Check that an existing run may change the given settings.

    Args:
        option: Option that names the run, for the error.
        names: Names of the settings.
        changeable: Those that it may change.

    Raises:
        ConfigurationError: One of them defines the run.
    """
    if wrong := [name for name in names if name not in changeable]:
        options = [f"--{name.replace('_', '-')}" for name in sorted(changeable)]
        raise ConfigurationError(
            f"{option} uses the settings of the run, not {', '.join(wrong)}: give only "
            f"{', '.join(options)}, --tensorboard and --wandb-project"
        )


def _check_alike(experiment: Experiment) -> None:
    """Check that every process has data, settings and weights of the first one."""
    values, free = experiment.config.values(), ExperimentConfig.free_settings()
    compared = {
        "data": vars(experiment.seen_data),
        "settings": {name: value for name, value in values.items() if name not in free},
        "weights": experiment.weights_digest,
    }
    for what, value in compared.items():
        text = json.dumps(value, sort_keys=True, default=str)
        digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])  # fits into an int64
        if digest != of_first_process(digest, experiment.device):
            raise ConfigurationError(
                f"process {rank()} has other {what} than the first process: start the same command "
                "with the same data on every machine"
            )


def _note_position(training: Training) -> None:
    path, (task_id, epochs, samples) = training.run_directory.path, training.position
    if training.is_finished:
        logger.info("%s is finished already", path)
    elif task_id == training.experiment.n_tasks:
        logger.info("resuming %s after its last task", path)
    else:
        within = f", after {samples:,} samples" if samples else ""
        logger.info("resuming %s from task %d, epoch %d%s", path, task_id, epochs, within)


def _changed(
    saved: ExperimentConfig,
    changes: Mapping[str, Any],
    changeable: frozenset[str] = CHANGEABLE,
) -> tuple[ExperimentConfig, str | None]:
    """Return the changed configuration, and the precision if that is among the changes.

    The checkpoint holds the precision that a run resumes with; its configuration keeps the one
    that it started with.
    """
    check_changeable("a run that was started", changes, changeable)
    if "data" in changes:
        changes = {**changes, "data": moved(saved.data, changes["data"])}
    changed = ExperimentConfig.parse({**saved.values(), **changes}, own=saved.values())
    config = changed.model_copy(update={"precision": saved.precision}).with_absolute_places()
    return config, changed.precision if "precision" in changes else None


def check_places(config: ExperimentConfig, changes: Mapping[str, Any]) -> None:
    """Check that data and benchmark of a run are still where its settings say.

    Args:
        config: The settings.
        changes: The settings that the user gave; opening them reports an error.

    Raises:
        ConfigurationError: Something has moved.
    """
    of_data = read_data(changes["data"]) if "data" in changes else {}
    for (name, dataset), path in config.missing_places().items():
        if name not in changes or (dataset and dataset not in of_data):
            what, value = (f"{name} {dataset}", f" {dataset}=PLACE") if dataset else (name, "")
            raise ConfigurationError(
                f"the run's {what} is not at {path}: if it moved, give its new place with "
                f"--{name}{value}"
            )
