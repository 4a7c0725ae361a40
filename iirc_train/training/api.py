"""Training from a script or a notebook: ``iirc_train.train`` and ``iirc_train.resume``."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.methods.settings import experiment_config
from iirc_train.run.directory import CONFIG_NAME
from iirc_train.run.results import RunResults, read_results
from iirc_train.run.trackers import TENSORBOARD_ONLY, Tracking
from iirc_train.runtime.progress import can_draw_bars
from iirc_train.training.launch import continue_experiment, resume_experiment, run_experiment


def train(
    config: ExperimentConfig | Mapping[str, Any],
    output: str | os.PathLike[str],
    *,
    resume: Literal["never", "auto"] = "never",
    progress: bool = True,
    tracking: Tracking = TENSORBOARD_ONLY,
) -> RunResults:
    """Train a method through all tasks of a schedule, evaluating after each.

    Ctrl-C, or interrupting the notebook's kernel, stops after the current step with a checkpoint.

    Args:
        config: The run's configuration, or its settings by name, those that only its method has
            among them.
        output: Folder for the run.
        resume: ``"never"`` requires a folder without a run. ``"auto"`` resumes a run that was
            started there with the same settings, and only reads the results of a finished one.
        progress: Show bars on a terminal, or in a notebook with ``ipywidgets``. Elsewhere, and if
            False, progress is logged to the logger ``iirc_train`` at level INFO.
        tracking: What else follows the run.

    Returns:
        The run's scores on the test split; see :func:`~iirc_train.run.results.read_results`.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong, or the folder holds a run already.
    """
    if resume not in ("never", "auto"):
        raise ConfigurationError(f"resume={resume!r}: choose 'never' or 'auto'")
    if not isinstance(config, ExperimentConfig):
        config = experiment_config(**config)
    start = run_experiment if resume == "never" else continue_experiment
    with _resumable(output):
        return read_results(start(config, Path(output), _console(progress), tracking=tracking))


def resume(
    output: str | os.PathLike[str],
    *,
    progress: bool = True,
    tracking: Tracking = TENSORBOARD_ONLY,
    **changes: Any,
) -> RunResults:
    """Resume a run from its last checkpoint; a finished run is only read.

    Args:
        output: The run's folder.
        progress: See :func:`train`.
        tracking: What else follows the run.
        **changes: Settings that replace the run's own: where the same ``data`` and ``benchmark``
            are now, ``precision``, and those of the machine, such as ``device`` and ``threads``.

    Returns:
        The run's scores on the test split.

    Raises:
        IIRCError: The folder holds no run, its data has changed or moved, its checkpoint is
            damaged, or a setting may not change.
    """
    path = Path(output)
    with _resumable(output):
        resume_experiment(path, _console(progress), tracking=tracking, changes=changes)
    return read_results(path)


@contextmanager
def _resumable(output: str | os.PathLike[str]) -> Iterator[None]:
    """Say how to resume below the traceback of an interrupt."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if (Path(output) / CONFIG_NAME).exists():
            interrupt.add_note(f"to resume the run: iirc_train.resume({os.fspath(output)!r})")
        raise


def _console(progress: bool) -> Console | None:
    console = Console()
    return console if progress and can_draw_bars(console) else None
