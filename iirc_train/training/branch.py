"""Branching: a new run that starts where another one had learned a task, with other settings."""

import hashlib
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.datasets import open_datasets
from iirc_data.definitions import TRAIN
from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_data.files import file_sha256, hidden_neighbour, sync_folder, sync_tree, write_json
from iirc_data.locks import LOCK_NAME, sole_user
from iirc_train.config.compose import without_replaced
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.image_preset import benchmark_as_shown
from iirc_train.config.network import image_size
from iirc_train.config.settings import Role
from iirc_train.config.weights import NONE
from iirc_train.methods import get_method
from iirc_train.methods.settings import check_has_effect, settings_for, settings_of_run
from iirc_train.models.networks import expected_images
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint, taking_over
from iirc_train.run.confusion import copy_confusions
from iirc_train.run.directory import (
    BUFFER_NAME,
    CONFIG_NAME,
    METRICS_NAME,
    RECORD_NAME,
    TIMINGS_NAME,
    RunDirectory,
)
from iirc_train.run.record import SeenData, check_same_data, read_record, resolved_values
from iirc_train.run.resolved import resolved_precision
from iirc_train.run.trackers import TENSORBOARD_ONLY, Tracking
from iirc_train.runtime.distributed import choose_device, of_first_process, rank, wait_for_all
from iirc_train.runtime.notes import logger, notes_on
from iirc_train.runtime.process_group import process_group
from iirc_train.runtime.random_state import random_state, seed_random_generators
from iirc_train.training.components import Experiment
from iirc_train.training.identity import (
    saved_settings,
    task_sequences,
    transforms_as_written,
)
from iirc_train.training.launch import check_places, continue_experiment


def branch_experiment(
    parent: Path,
    task_id: int,
    output: Path,
    console: Console | None = None,
    *,
    tracking: Tracking = TENSORBOARD_ONLY,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Start a run from the state that another one had after a task; it learns the later tasks.

    Calling it again resumes an interrupted branch. The other run is only read, and may go on.

    Args:
        parent: Folder of the other run.
        task_id: The last task to take over.
        output: Folder for the new run.
        console: Where progress and notes are shown; None logs them to ``iirc_train``.
        tracking: What else follows the run.
        changes: Settings that replace the other run's. Those that shaped what it has learned and
            kept (:attr:`~iirc_train.config.settings.Role.STATE`) may not change.

    Returns:
        The new run's folder.

    Raises:
        ConfigurationError: The other run has not kept its state after the task, a setting may not
            change, the data has changed, or ``output`` contains another run.
        CheckpointError: The other run's checkpoint is damaged, or does not fit the changes.
        BufferStorageError: Its memories are damaged.
        IIRCError: Benchmark or data are wrong.
    """
    tracking.check_installed()
    before = settings_of_run(RunDirectory.open(parent)[1])
    config = _branch_settings(before, changes or {})
    check_places(config, changes or {})
    device = choose_device(config.device)
    with process_group(device):
        with notes_on(console):
            # the first process may already create the folder while another one looks
            exists = bool(of_first_process((output / CONFIG_NAME).exists(), device))
            if exists:
                _check_parent(output, parent, task_id)
            else:
                _create(parent, task_id, before, config, output, "precision" in (changes or {}))
            wait_for_all()
        return continue_experiment(config, output, console, tracking=tracking)


def _branch_settings(before: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    if changes.get("method", before.method) != before.method:
        raise _cannot_change(["method"])
    own = get_method(before.method).config
    fixed = ExperimentConfig.with_role(Role.STATE) | own.with_role(Role.STATE)
    earlier = before.values()
    kept = {name: earlier[name] for name in fixed.intersection(earlier)}
    settings = {**without_replaced(earlier, changes), **kept, **changes}
    try:
        after = ExperimentConfig.parse(settings, own=earlier)
        after = settings_for(after, load_benchmark(after.benchmark).setup)
    except ConfigurationError as error:  # which may name a setting that was only kept
        asked = fixed.intersection(changes)
        if wrong := [name for name in asked if str(changes[name]) != str(earlier.get(name))]:
            raise _cannot_change(wrong) from error
        raise
    if changed := fixed & _changed(before, after).keys():
        raise _cannot_change(changed)
    check_has_effect(after, among=changes)
    return after.with_absolute_places()


def _cannot_change(names: Collection[str]) -> ConfigurationError:
    return ConfigurationError(
        f"a branch cannot change {', '.join(sorted(names))}, which shaped what the run has learned "
        "and kept so far: leave it out, or train a new run"
    )


def _changed(before: ExperimentConfig, after: ExperimentConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ: name to the value before and after."""
    old, new = before.values(), after.values()
    names = [name for name in new if old.get(name) != new[name]]
    return {name: (old.get(name), new[name]) for name in names}


def _check_parent(output: Path, parent: Path, task_id: int) -> None:
    origin = read_record(output).get("parent") if (output / RECORD_NAME).exists() else None
    if origin is None:
        raise ConfigurationError(f"{output} holds a run already: give another --output")
    if (origin["run"], origin["task"]) != (str(parent.resolve()), task_id):
        raise ConfigurationError(
            f"{output} holds a branch of {origin['run']} after task {origin['task']}, not of "
            f"{parent} after task {task_id}: give another --output"
        )


def _create(
    parent: Path,
    task_id: int,
    before: ExperimentConfig,
    config: ExperimentConfig,
    output: Path,
    precision_asked: bool,
) -> None:
    """Create the folder of a branch: as of a run that was interrupted after the task.

    The first process writes it; all processes check that they can load its state.
    """
    draft = hidden_neighbour(output.absolute(), "branch.partial")
    if rank() > 0:
        wait_for_all()  # until the first process has written the draft
        _check_loads(draft, before, config)
        return
    RunDirectory.check_unused(output)
    if output.exists() and any(output.iterdir()):
        raise ConfigurationError(f"{output} is not empty: give a new folder")
    data = _checked_data(config, read_record(parent), task_id)
    checkpoint, state = _state_after(parent, task_id)
    if precision_asked:
        before = _with_precision_then(before, config, state)
    with sole_user(draft):
        _clear(draft)  # of a killed process
        try:
            _write(parent, draft, checkpoint, state, before, config)
            origin = _origin(parent, task_id, checkpoint, before, config)
            write_json(draft / RECORD_NAME, {**vars(data), "parent": origin, "sessions": []})
            config.save(draft / CONFIG_NAME)
            wait_for_all()
            _check_loads(draft, before, config)
            sync_tree(draft)
        except BaseException:
            _clear(draft)
            raise
        with suppress(FileNotFoundError):
            output.rmdir()  # an empty folder
        draft.rename(output)
        (output / LOCK_NAME).unlink(missing_ok=True)
    sync_folder(output.absolute().parent)
    logger.info("%s starts from %s after task %d", output, parent, task_id)


def _with_precision_then(
    before: ExperimentConfig, config: ExperimentConfig, state: Mapping[str, Any]
) -> ExperimentConfig:
    """Return the parent's settings with the precision in which it trained before a checkpoint.

    It may have been resumed in another than it was started in. If the branch goes on in the same
    one, it changes nothing.
    """
    then = state["experiment"].get("resolved", {}).get("precision", before.precision)
    size = image_size(_as_shown(config))
    asked = resolved_precision(config.precision, choose_device(config.device), size)
    return before.model_copy(update={"precision": config.precision if asked == then else then})


def _as_shown(config: ExperimentConfig) -> Benchmark:
    expected = expected_images(config.network, config.weights)
    return benchmark_as_shown(config.benchmark, config.image_preset, expected)


def _check_loads(draft: Path, before: ExperimentConfig, config: ExperimentConfig) -> None:
    """Load the state of a branch as the branch will, while it can still be refused.

    Raises:
        CheckpointError: The state does not fit the changed settings, or is damaged.
    """
    checkpoint = RunDirectory(draft).checkpoint
    with Experiment(config, draft / BUFFER_NAME, loads_weights=False) as experiment:
        try:
            with taking_over(checkpoint):
                experiment.load_state_dict(load_checkpoint(checkpoint)["experiment"])
        except CheckpointError as error:
            free = ExperimentConfig.free_settings()
            if not (changed := [name for name in _changed(before, config) if name not in free]):
                raise
            raise CheckpointError(
                f"the run's state is damaged, or does not fit a branch with another "
                f"{', '.join(changed)}: leave that out, or train a new run ({error})"
            ) from error


def _clear(draft: Path) -> None:
    for path in draft.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def _write(
    parent: Path,
    draft: Path,
    checkpoint: Path,
    state: dict[str, Any],
    before: ExperimentConfig,
    config: ExperimentConfig,
) -> None:
    """Write the results, the memories and the checkpoint of a branch."""
    with taking_over(checkpoint):
        task_id = int(state["position"][0]) - 1
        _copy_lines(parent, draft, state)
        copy_confusions(parent, draft, task_id)
        buffer = state["experiment"]["buffer"]
        store = get_method(config.method).buffer.Store
        generation = store(draft / BUFFER_NAME).copy_memories(
            store(parent / BUFFER_NAME, read_only=True), buffer
        )
        _change_state(state, before, config, generation)
    save_checkpoint(RunDirectory(draft).checkpoint, state)


def _origin(
    parent: Path, task_id: int, checkpoint: Path, before: ExperimentConfig, config: ExperimentConfig
) -> dict[str, Any]:
    """Return where a branch comes from, for its record."""
    changed = _changed(before, config)
    record = read_record(parent)
    return {
        "run": str(parent.resolve()),
        "task": task_id,
        "checkpoint_sha256": file_sha256(checkpoint),
        "precision": resolved_values(record, "precision", last_task=task_id),
        "settings": {n: {"before": old, "after": new} for n, (old, new) in changed.items()},
        **({"parent": record["parent"]} if "parent" in record else {}),
    }


def _checked_data(config: ExperimentConfig, record: Mapping[str, Any], task_id: int) -> SeenData:
    benchmark = load_benchmark(config.benchmark)
    store = open_datasets(benchmark, config.data, cache_size=config.cache_size)
    splits = task_sequences(config, benchmark, store)
    data, last = SeenData.of(store, splits), len(splits[TRAIN]) - 1
    check_same_data(record, data)
    if not 0 <= task_id < last:
        what = "is its last one, so nothing is left to learn" if task_id == last else "is none"
        raise ConfigurationError(
            f"the run has tasks 0 to {last}, and task {task_id} {what}: "
            + (f"give a task from 0 to {last - 1}" if last else "a branch needs two tasks at least")
        )
    return data


def _state_after(parent: Path, task_id: int) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint that a run kept from the end of a task, and its content."""
    run = RunDirectory(parent)
    for path in (run.task_checkpoint(task_id), run.checkpoint):
        if path.exists():
            state = load_checkpoint(path)
            if tuple(state.get("position", ())) == (task_id + 1, 0):
                return path, state
    kept = sorted(int(path.stem[5:]) for path in run.checkpoint.parent.glob("task_*.pt"))
    raise ConfigurationError(
        f"{parent} has not kept its state after task {task_id}, "
        + (f"only after {', '.join(map(str, kept))}" if kept else "nor after any other")
        + ": train it with --save-each-task-model"
    )


def _copy_lines(parent: Path, draft: Path, state: Mapping[str, Any]) -> None:
    """Copy the metrics and timings that a run had written before a checkpoint."""
    for name in (METRICS_NAME, TIMINGS_NAME):
        with (parent / name).open("rb") as file:
            lines = file.read(state["sizes"][name])
        if name == METRICS_NAME and hashlib.sha256(lines).hexdigest() != state["metrics_digest"]:
            raise CheckpointError(
                f"{parent / name} has changed since the checkpoint: restore the original file"
            )
        (draft / name).write_bytes(lines)


def _change_state(
    state: dict[str, Any], before: ExperimentConfig, config: ExperimentConfig, generation: int
) -> None:
    experiment = state["experiment"]
    experiment["configuration"] = saved_settings(config)
    experiment["buffer"] = {**experiment["buffer"], "generation": generation}
    # a task starts with a new optimizer, which may be another one now
    experiment["method"] |= {"optimizer": None, "scheduler": None}
    experiment["method"].pop("warmup_steps", None)
    if config.seed != before.seed:
        if "features" in experiment.get("resolved", {}) and config.weights == NONE:
            raise ConfigurationError(
                "a branch of a run on cached features of a network with random weights cannot "
                "change seed, which these weights depend on: leave it out, or train a new run"
            )
        seed_random_generators(config.seed)
        experiment["random"], state["random"] = random_state(), []
    if config.image_preset != before.image_preset:
        experiment["transforms"] = transforms_as_written(_as_shown(config))
    if config.precision != before.precision:
        experiment.get("resolved", {}).pop("precision", None)
