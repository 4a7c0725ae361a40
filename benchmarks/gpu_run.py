"""A complete run of the size of IIRC-CIFAR100, and the fraction of time that the GPU is idle.

``python -m benchmarks.gpu_run --epochs 140``. The run has 22 tasks, with the published
settings of ``icarl_cnn``, on as many images of noise as CIFAR-100 has. Commits of the replay
buffer, checkpoints and evaluation are timed, and from the epochs that were trained follows what
the published 140 epochs per task take. Afterwards, epochs of the second task, which replays
memories, are timed, and the profiler records one. The program also runs on a CPU, as a check of the
program itself: ``--benchmark iirc_cifar10 --epochs 1 --images 10 --layers 8 --memories 2``.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.comparison import Results
from benchmarks.images import NoiseImages
from benchmarks.replay_epochs import WARM_UP, ReplayEpochs
from benchmarks.results import RESULTS_FOLDER, Result, Setting
from benchmarks.stopwatch import Stopwatch
from benchmarks.synthetic import CIFAR100_TEST, CIFAR100_TRAIN
from iirc_data.benchmarks import load_benchmark
from iirc_data.console import run_tool
from iirc_data.loader.decoder import default_threads
from iirc_data.locks import sole_writer_of
from iirc_data.shards import write_shards
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_train.buffer.store import BufferStore
from iirc_train.config import ExperimentConfig
from iirc_train.config.compose import compose
from iirc_train.config.setup import FORMER_FIRST_TASK_EPOCHS as FIRST_TASK_EPOCHS
from iirc_train.run.directory import TIMINGS_NAME
from iirc_train.runtime.distributed import choose_device
from iirc_train.training import trainer
from iirc_train.training.launch import run_experiment

PRESET = "cifar100-icarl_cnn-20"
BENCHMARK = "iirc_cifar100"
PUBLISHED_EPOCHS = 140
LEARNING_RATE = 0.01  # with the published rate, the loss on noise becomes infinite
TIMED_EPOCHS = 5
_FEW = 100


def noise_shards(folder: Path, images: int, benchmark: str = BENCHMARK) -> Path:
    """Write shards of noise in the shape of CIFAR, unless the folder holds them already.

    Args:
        folder: The shard folder.
        images: Training images per class; there are a fifth as many test images.
        benchmark: The benchmark that names the classes.
    """
    classes = tuple(load_benchmark(benchmark).leaf_classes)
    source = NoiseImages(classes, images, max(1, images * CIFAR100_TEST // CIFAR100_TRAIN))
    with sole_writer_of(folder):  # another step may be writing it
        if not (folder / MANIFEST_NAME).exists():
            write_shards(source, folder, workers=default_threads() if images >= _FEW else 1)
    return folder


def configuration(shards: Path, images: int, **changes: Any) -> ExperimentConfig:
    """Return the published configuration of ``icarl_cnn``, on noise.

    Args:
        shards: The shards of noise.
        images: Training images per class. If they are few, tasks have no validation images, and
            the learning rate stays as it is.
        **changes: Other settings; None leaves a setting as published.

    Raises:
        ConfigurationError: A setting does not exist, or its value is wrong.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if images < _FEW:
        given["reduce_lr_on_plateau"] = False
    return compose(PRESET, None, {"data": str(shards), "lr": LEARNING_RATE, **given})


def run_figures(config: ExperimentConfig, run: Path, console: Console) -> dict[str, float]:
    """Train a run to its end, and return how long it and its parts took.

    Args:
        config: The run's configuration.
        run: Folder for the run.
        console: Shows progress.

    Returns:
        Figures by name and unit.
    """
    watch = Stopwatch()
    parts = (
        (BufferStore, "commit", "commits"),
        (trainer.Training, "_save", "checkpoints"),
        (trainer.Training, "_evaluate", "evaluation"),
        (trainer, "evaluate", "validation"),
    )
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(watch.on(*part))
        started = time.perf_counter()
        run_experiment(config, run, console)
        seconds = time.perf_counter() - started
    lines = (run / TIMINGS_NAME).read_text().splitlines()
    epochs: dict[int, list[float]] = defaultdict(list)
    for record in map(json.loads, lines):
        epochs[record["task"]].append(record["seconds"])
    longer = seconds_of_more_epochs(epochs, PUBLISHED_EPOCHS, watch.mean("validation"))
    saves = n_checkpoints(len(epochs), PUBLISHED_EPOCHS, config.checkpoint_interval)
    longer += watch.mean("checkpoints") * (saves - len(watch.seconds["checkpoints"]))
    return {
        "end to end (s)": seconds,
        "training epochs (s)": sum(map(sum, epochs.values())),
        **{f"{part} (s)": watch.total(part) for *_, part in parts},
        "slowest commit (s)": max(watch.seconds["commits"]),
        f"with {PUBLISHED_EPOCHS} epochs per task (min)": (seconds + longer) / 60,
    }


def seconds_of_more_epochs(
    epochs: Mapping[int, Sequence[float]], epochs_per_task: int, validation: float
) -> float:
    """Return what a run takes longer with more epochs per task.

    The first epoch of a task decodes its images, and compiles; others are not expected to.

    Args:
        epochs: Each task's number to the durations of its epochs in seconds.
        epochs_per_task: Epochs per task; the first task has twice as many.
        validation: Seconds of an evaluation on the validation samples, after each epoch.

    Returns:
        Seconds; negative if the epochs are fewer.
    """
    longer = 0.0
    for task, durations in epochs.items():
        wanted = epochs_per_task * (1 if task else FIRST_TASK_EPOCHS)
        each = mean(durations[1:] or durations) + validation
        longer += each * (wanted - len(durations))
    return longer


def n_checkpoints(n_tasks: int, epochs_per_task: int, interval: int) -> int:
    """Return how many checkpoints a run writes: one per task, and one per ``interval`` epochs."""
    per_task = epochs_per_task // interval if interval else 0
    first = FIRST_TASK_EPOCHS * epochs_per_task // interval if interval else 0
    return n_tasks + first + per_task * (n_tasks - 1)


def replay_figures(config: ExperimentConfig, epochs: int = TIMED_EPOCHS) -> dict[str, float]:
    """Time epochs of the second task with memories.

    Args:
        config: The run's configuration.
        epochs: Timed epochs, after those that decode and compile.

    Returns:
        Figures by name and unit; on a GPU, with the fraction of time that it is idle: the wall time
        of epochs without the profiler, less the time of kernels in an epoch with it.
    """
    training = ReplayEpochs(config)
    try:
        for _ in range(WARM_UP):
            training.seconds()
        seconds = median(training.seconds() for _ in range(epochs))
        figures = {
            "training with replay (images/s)": training.n_images / seconds,
            "step with replay (ms)": 1000 * seconds / training.n_steps,
            "replayed share": training.n_memories / training.n_images,
        }
        if training.device.type == "cuda":
            figures["GPU idle share"] = max(0.0, 1 - training.busy_seconds() / seconds)
    finally:
        training.close()
    return figures


def main(
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs per task; the first task gets twice as many.")
    ] = PUBLISHED_EPOCHS,
    benchmark: Annotated[str, typer.Option(help="Benchmark; iirc_cifar10 is smaller.")] = BENCHMARK,
    device: Annotated[str, typer.Option(help="Training device: auto, cpu or cuda.")] = "auto",
    images: Annotated[int, typer.Option(min=5, help="Training images per class.")] = CIFAR100_TRAIN,
    layers: Annotated[int, typer.Option(help="Layers of the ResNet.")] = 32,
    memories: Annotated[int, typer.Option(min=1, help="Memories per class.")] = 20,
    precision: Annotated[str, typer.Option(help="auto, fp32 (TF32 on a GPU) or bf16.")] = "auto",
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,
    graph: Annotated[
        str | None, typer.Option(help="CUDA graph of the step: on, off or auto.")
    ] = None,
    results: Results = RESULTS_FOLDER,
) -> None:
    """Train, print durations, and write a JSON file."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="iirc-benchmark-") as folder:
        target = choose_device(device)
        config = configuration(
            noise_shards(Path(folder, "shards"), images, benchmark),
            images,
            benchmark=benchmark,
            n_memories_per_class=memories,
            epochs_per_task=epochs,
            n_layers=layers,
            device=device,
            precision=precision,
            compile=compiled,
            graph=graph,
        )
        figures = run_figures(config, Path(folder, "run"), console)
        figures |= replay_figures(config)
        if target.type != "cuda":
            console.print("no GPU: its idle share was not measured")
    settings: dict[str, Setting] = {
        "preset": PRESET,
        "benchmark": benchmark,
        "memories per class": memories,
        "epochs per task": epochs,
        "images per class": images,
        "layers": layers,
        "precision": precision,
        "compile": compiled,
        "graph": graph,
        "device": target.type,
    }
    result = Result.now("gpu-run", target, settings, [], figures)
    for name, value in figures.items():
        console.print(f"{name}: {value:,.2f}")
    print(f"written to {result.write(results)}")


if __name__ == "__main__":
    run_tool(main)
