"""Beginning a run, going on with one, and doing one again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from iirc_train.config import ExperimentConfig
from iirc_train.distributed import choose_device, process_group, rank
from iirc_train.engine import Training
from iirc_train.experiment import Experiment
from iirc_train.record import check_same_data, read_record, tell_of_versions
from iirc_train.run_directory import BUFFER_NAME, RunDirectory
from iirc_train.tracking import TENSORBOARD_ONLY, Tracking


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
            :func:`~iirc_train.record.read_record` gives it; checked before training.

    Returns:
        The run's folder.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """
    tracking.check_installed()  # before there is a folder that a second try would not begin in
    with process_group(choose_device(config.device)), RunDirectory.held_for_new_run(output):
        experiment = Experiment(config, output / BUFFER_NAME)
        if reference is not None:
            check_same_data(reference, experiment)
            if rank() == 0:
                tell_of_versions(reference, console)
        Training(experiment, RunDirectory.create(output, config)).run(console, tracking)
    return output


def resume_experiment(
    output: Path, console: Console, *, tracking: Tracking = TENSORBOARD_ONLY
) -> Path:
    """Go on with a run from its last checkpoint; a finished run is left as it is.

    Args:
        output: The run's folder.
        console: Where progress is shown.
        tracking: Who else follows the run.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: The folder holds no run.
        CheckpointError: The checkpoint is damaged, or of other data.
        IIRCError: Benchmark or data are wrong.
    """
    run, config = RunDirectory.open(output)
    with process_group(choose_device(config.device)), run.held():
        Training(Experiment(config, output / BUFFER_NAME), run).run(console, tracking)
    return output


def repeat_experiment(
    run: Path, output: Path, console: Console, *, tracking: Tracking = TENSORBOARD_ONLY
) -> Path:
    """Train once more what a run trained; on the same machine the results are the same bits.

    Args:
        run: Folder of the run.
        output: Folder for the new run.
        console: Where progress is shown, and whether versions differ.
        tracking: Who else follows the run.

    Returns:
        The new run's folder.

    Raises:
        ConfigurationError: The folder holds no run, or the data is another now.
        IIRCError: Benchmark or data are wrong.
    """
    _, config = RunDirectory.open(run)
    record = read_record(run)
    return run_experiment(config, output, console, tracking=tracking, reference=record)
