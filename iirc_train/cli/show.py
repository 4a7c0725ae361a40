"""``iirc data show``: a picture of the images that a model trains on."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from iirc_data.console import errors_in_one_line, plain_console
from iirc_data.definitions import TRAIN
from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_data.task_view import TaskView
from iirc_train.cli.options import at_home_if_given, given
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.places import at_home, moved
from iirc_train.methods.settings import settings_of_run
from iirc_train.report.contact_sheet import ShownImage, contact_sheet
from iirc_train.report.figure_files import write_figure
from iirc_train.run.directory import BUFFER_NAME, RECORD_NAME, RunDirectory
from iirc_train.run.record import read_record
from iirc_train.runtime.lines import print_line
from iirc_train.training.components import Experiment

FORMATS = (".png", ".pdf", ".svg")
MOST_NAMES = 8

HERE: dict[str, Any] = {
    "device": "cpu",
    "decoder": "auto",
    "resident": False,
    "threads": None,
    "cache_features": False,
}
"""How images are read for a sheet, whatever a run was trained on; they are the same."""


def show(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SHARDS]...",
            help="Shard folder, or NAME=FOLDER for each of several datasets; default: the run's.",
        ),
    ] = None,
    task: Annotated[int, typer.Option(min=0, help="Number of the task.")] = 0,
    benchmark: Annotated[str | None, typer.Option(help="Name or file of a benchmark.")] = None,
    schedule: Annotated[
        int | None, typer.Option(min=0, help="Number of the benchmark's schedule.")
    ] = None,
    image_preset: Annotated[
        str | None, typer.Option(help="Image preset instead of the benchmark's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of order and augmentation.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a run: show its settings and memories.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=400, help="Number of images.")] = 32,
    output: Annotated[Path, typer.Option(help="Picture to write: png, pdf or svg.")] = Path(
        "sheet.png"
    ),
) -> None:
    """Draw the images that begin a task's training, augmented, with their visible labels.

    With --run, they are the images, including memories, that the run's task started with. A run on
    cached features has no images of its memories.
    """
    output, run = at_home(output), at_home_if_given(run)
    with errors_in_one_line():
        if output.suffix not in FORMATS:
            raise ConfigurationError(
                f"cannot draw {output}: its name must end in {', '.join(FORMATS)}"
            )
        settings = given(
            {
                "benchmark": benchmark,
                "schedule": schedule,
                "image_preset": image_preset,
                "seed": seed,
            }
        )
        if run is not None:
            if settings:
                raise ConfigurationError(
                    f"--run determines {', '.join(settings)}: give one or the other"
                )
            config = settings_of_run(RunDirectory.open(run)[1])
            elsewhere = {"data": moved(config.data, data)} if data else {}
            values = {**config.values(), **HERE, **elsewhere}
            config = ExperimentConfig.parse(values, own=values)
        else:
            if not data or benchmark is None:
                raise ConfigurationError("nothing to show: give SHARDS and --benchmark, or --run")
            settings |= {"data": data, "method": "finetune"}
            config = ExperimentConfig.parse(settings | HERE)
        with Experiment(config, loads_weights=False) as experiment:
            _check_task(experiment, task)
            if run is not None and task > 0 and not _keeps_features(run):
                recall_memories(experiment, run, task)
            if experiment.method.memories_only:
                experiment.buffer.update_buffer_new_task(experiment.task_data(task))
            shown = images_shown(experiment, task, images)
            figure = contact_sheet(
                shown, _title(experiment, task), _subtitle(experiment, task, len(shown))
            )
        try:
            write_figure(figure, output)
        except OSError as error:
            raise ConfigurationError(f"cannot write {output}: {error.strerror}") from error
        n_replayed = sum(image.is_replayed for image in shown)
        print_line(plain_console(), f"{output}: {len(shown)} images, {n_replayed} of them replayed")


def _keeps_features(run: Path) -> bool:
    """Return whether the buffer of a run keeps features instead of images."""
    sessions = read_record(run)["sessions"] if (run / RECORD_NAME).exists() else []
    return any("features" in session.get("resolved", {}) for session in sessions)


def recall_memories(experiment: Experiment, run: Path, task: int) -> None:
    """Load the memories that a run had at the start of a task into an experiment.

    Raises:
        ConfigurationError: The run has no buffer.
        BufferStorageError: The run has not reached that task.
    """
    path = run / BUFFER_NAME
    if not path.is_dir():
        raise ConfigurationError(f"{run} has no replay buffer: there is no {path}")
    learned = experiment.splits[TRAIN].view(range(task)).seen_class_names
    buffer = experiment.buffer
    buffer.recall(buffer.Store(path, read_only=True), learned)


def images_shown(experiment: Experiment, task: int, n: int) -> list[ShownImage]:
    """Return the first images of a task's training.

    If the method draws memories apart from its batches, half of the images are such memories.
    """
    view = experiment.view(TRAIN, task)
    method, data = experiment.method, experiment.task_data(task)
    choice = method.choose_samples(None, data, experiment.buffer)
    loader = experiment.training_loader(view, normalize=False, choice=choice)
    loader.set_epoch(method.first_epoch_of_task(task))
    memories = experiment.memory_batches(view, normalize=False)
    n_memories = 0 if memories is None else n // 2
    samples = islice(_images(loader, view), n - n_memories)
    return [*samples, *islice(_images(memories or (), view), n_memories)]


def _images(batches: Iterable[Batch], view: TaskView) -> Iterator[ShownImage]:
    for each in batches:
        batch = each if each.whole is None else each.whole
        pixels = batch.images.permute(0, 2, 3, 1)
        for image, targets, is_replayed in zip(
            pixels.numpy(), batch.targets.bool(), batch.in_buffer.tolist(), strict=True
        ):
            names = [view.class_names[index] for index in targets.nonzero().flatten().tolist()]
            yield ShownImage(image, tuple(names), is_replayed)


def _check_task(experiment: Experiment, task: int) -> None:
    if task >= experiment.n_tasks:
        raise ConfigurationError(
            f"there is no task {task}: schedule {experiment.config.schedule} of "
            f"{experiment.benchmark.name} has tasks 0 to {experiment.n_tasks - 1}"
        )


def _title(experiment: Experiment, task: int) -> str:
    names = experiment.splits[TRAIN].tasks[task]
    shown = ", ".join(names[:MOST_NAMES])
    more = f", … ({len(names)} classes)" if len(names) > MOST_NAMES else ""
    return f"{experiment.benchmark.name}, task {task}: {shown}{more}"


def _subtitle(experiment: Experiment, task: int, n_shown: int) -> str:
    config = experiment.config
    n_samples, n_memories = len(experiment.view(TRAIN, task)), len(experiment.buffer)
    text = f"{config.method}: " if n_memories else ""
    text += f"first {n_shown} images, schedule {config.schedule}, seed {config.seed}; "
    text += f"the task has {n_samples:,}"
    if not n_memories:
        return text
    apart = "" if experiment.method.replay_in_batches else ", drawn apart"
    return f"{text}, the buffer {n_memories:,}{apart}"
