"""Training epochs of a second task, which replays the memories of the first."""

import time
from collections.abc import Iterable

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from iirc_data.definitions import TRAIN
from iirc_train.config import ExperimentConfig
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training.components import Experiment
from iirc_train.training.epoch import train_epoch
from iirc_train.training.trainer import HERDING_BATCH_SIZE

WARM_UP = 2  # epochs that decode the images, and compile or capture the step


class ReplayEpochs:
    """A method that has chosen memories of the first task, and trains on the second.

    Args:
        config: The run's configuration.

    Attributes:
        n_images: Images per epoch, memories included.
        n_memories: Memories per epoch.
        n_steps: Steps per epoch.
        device: Device of the network.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self._experiment = experiment = Experiment(config)
        method = experiment.method
        first = experiment.task_data(0)
        method.prepare_model_for_new_task(first)
        experiment.buffer.update_buffer_new_task(
            first, method=method, batch_size=HERDING_BATCH_SIZE
        )
        view = experiment.view(TRAIN, 1)
        method.prepare_model_for_new_task(
            experiment.task_data(1),
            batch_size=HERDING_BATCH_SIZE,
            memory_batches=experiment.memory_batches(view),
        )
        experiment.connect_network()
        self._loader = experiment.training_loader(view)
        self._progress = TrainingProgress(Console(quiet=True), "", experiment.n_tasks)
        self._epoch = 0
        self.device = experiment.device
        self.n_images = self._loader.n_samples
        self.n_memories = self.n_images - len(view)
        self.n_steps = len(self._loader)

    def close(self) -> None:
        """Release the decoder's threads and memory."""
        self._experiment.close()

    def seconds(self) -> float:
        """Train an epoch, and return its duration in seconds."""
        self._loader.set_epoch(self._epoch)
        self._epoch += 1
        started = time.perf_counter()
        train_epoch(self._experiment, self._loader, self._progress)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started

    def busy_seconds(self) -> float:
        """Train an epoch under the profiler, and return how long the GPU computed, in seconds."""
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            self.seconds()
        return (
            covered(
                (event.time_range.start, event.time_range.end)
                for event in profiler.events()
                if event.device_type.name == "CUDA" and not event.is_user_annotation
            )
            / 1e6
        )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans, which may overlap, each from start to end."""
    length, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        length += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return length
