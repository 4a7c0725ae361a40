"""A complete run of the size of IIRC-CIFAR100, and the fraction of time that the GPU is idle.

``python -m benchmarks.gpu_run --epochs 140``. The run has 22 tasks, with the published
settings of ``icarl_cnn``, on as many images of noise as CIFAR-100 has. Afterwards, the profiler
records a training epoch of the second task. The program also runs on a CPU, as a check of the
program itself; use few epochs there.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from benchmarks.comparison import Results
from benchmarks.images import NoiseImages
from benchmarks.results import RESULTS_FOLDER, Result, Setting
from benchmarks.synthetic import CIFAR100_TEST, CIFAR100_TRAIN
from iirc_data.benchmarks import load_benchmark
from iirc_data.console import errors_in_one_line
from iirc_data.definitions import TRAIN
from iirc_data.shards import write_shards
from iirc_train.config import ExperimentConfig
from iirc_train.config.compose import compose
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training.components import Experiment
from iirc_train.training.launch import run_experiment
from iirc_train.training.trainer import train_epoch

PRESET = "cifar100-icarl_cnn-20"
LEARNING_RATE = 0.01  # with the published rate, the loss on noise becomes infinite


def idle_share(config: ExperimentConfig) -> tuple[float, float]:
    """Profile an epoch of the second task, after two epochs that compile and decode.

    Returns:
        The fraction of time that the GPU is idle, and images per second without the profiler.
    """
    experiment = Experiment(config)
    method = experiment.method
    for task_id in (0, 1):
        method.prepare_model_for_new_task(experiment.task_data(task_id))
    experiment.connect_network()
    loader = experiment.training_loader(experiment.view(TRAIN, 1))
    progress = TrainingProgress(Console(quiet=True), "", experiment.n_tasks)

    def epoch(number: int) -> float:
        loader.set_epoch(number)
        started = time.perf_counter()
        train_epoch(experiment, loader, progress)
        torch.cuda.synchronize(experiment.device)
        return time.perf_counter() - started

    epoch(0)
    epoch(1)
    images_per_second = loader.n_samples / epoch(2)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = epoch(3)
    busy = end = 0.0
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    for start, stop in sorted(spans):  # kernels may overlap
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - busy / 1e6 / seconds, images_per_second


def main(
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs per task; the first task gets twice as many.")
    ] = 140,
    device: Annotated[str, typer.Option(help="Training device: auto, cpu or cuda.")] = "auto",
    images: Annotated[
        int, typer.Option(min=50, help="Training images per class.")
    ] = CIFAR100_TRAIN,
    layers: Annotated[int, typer.Option(help="Layers of the ResNet.")] = 32,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,
    results: Results = RESULTS_FOLDER,
) -> None:
    """Train, print durations, and write a JSON file."""
    console = Console()
    with errors_in_one_line(), tempfile.TemporaryDirectory(prefix="iirc-benchmark-") as folder:
        classes = tuple(load_benchmark("iirc_cifar100").leaf_classes)
        source = NoiseImages(classes, images, images * CIFAR100_TEST // CIFAR100_TRAIN)
        write_shards(source, Path(folder, "shards"))
        overrides = {
            "data": str(Path(folder, "shards")),
            "epochs_per_task": epochs,
            "n_layers": layers,
            "lr": LEARNING_RATE,
            "device": device,
            "compile": compiled,
        }
        config = compose(PRESET, None, overrides)
        started = time.perf_counter()
        run_experiment(config, Path(folder, "run"), console)
        figures = {"end to end (s)": time.perf_counter() - started}
        experiment = Experiment(config)
        target, n_tasks = experiment.device, experiment.n_tasks
        if target.type == "cuda":
            idle, images_per_second = idle_share(config)
            figures |= {"GPU idle share": idle, "training (images/s)": images_per_second}
        else:
            console.print("no GPU: its idle share was not measured")
    settings: dict[str, Setting] = {
        "preset": PRESET,
        "tasks": n_tasks,
        "epochs per task": epochs,
        "images per class": images,
        "layers": layers,
        "compile": compiled,
        "device": target.type,
    }
    result = Result.now("gpu-run", target, settings, [], figures)
    for name, value in figures.items():
        console.print(f"{name}: {value:,.2f}")
    print(f"written to {result.write(results)}")


if __name__ == "__main__":
    typer.run(main)
