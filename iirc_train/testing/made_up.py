"""A method on made-up images, task after task, on any device."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from iirc_data.definitions import NO_LABEL_PLACEHOLDER, Item
from iirc_data.loader import Batch
from iirc_data.loader.batch import batch_with_draws
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.stages import Stage
from iirc_train.metrics import Outputs, Tally, confusion_counts
from iirc_train.training.evaluation import outputs_of

TASKS = (("a", "b", "c"), ("d", "e"), ("f", "g"))
CLASS_NAMES_TO_IDX = {name: number for number, name in enumerate(sum(TASKS, ()))}
N_CLASSES = len(CLASS_NAMES_TO_IDX)
IMAGE_SHAPE = (3, 32, 32)


class MadeUpSamples:
    """Noise images, two per class; serves as the data of a task and as the memories.

    Args:
        class_names: The classes.
        cur_task_id: Number of the task.
        device: Device of the batches.
    """

    def __init__(
        self, class_names: tuple[str, ...], cur_task_id: int, device: torch.device
    ) -> None:
        self.labels = [name for name in class_names for _ in range(2)]
        self.cur_task_id = cur_task_id
        self.cur_task = TASKS[cur_task_id]
        self.device = device

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        """Return an image on the CPU, and its labels."""
        return torch.rand(IMAGE_SHAPE), self.labels[index], NO_LABEL_PLACEHOLDER

    def get_image_indices_by_class(
        self, class_name: str, num_samples: int = -1, shuffle: bool = True
    ) -> NDArray[np.int64]:
        """Return the indices of the samples of a class."""
        return np.flatnonzero(np.array(self.labels) == class_name)

    get_image_indices_by_cla = get_image_indices_by_class

    @property
    def n_memories_per_class(self) -> Mapping[str, int]:
        """Number of samples of each class."""
        return Counter(self.labels)

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        """Nothing is augmented."""
        yield

    def loader(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Iterate over batches of the given samples."""
        for start in range(0, len(indices), batch_size):
            n = len(indices[start : start + batch_size])
            yield made_up_batch(n, N_CLASSES, self.device)


def made_up_batch(
    n: int, n_classes: int, device: torch.device, in_buffer: tuple[bool, ...] = ()
) -> Batch:
    """Return a batch of noise in channels-last layout, with two labels per sample."""
    images = torch.rand(n, *IMAGE_SHAPE).contiguous(memory_format=torch.channels_last)
    rows = torch.arange(n).unsqueeze(1)
    labels = (rows + torch.tensor([0, n_classes - 1])) % n_classes
    return Batch(
        images=images.to(device),
        targets=torch.zeros(n, n_classes).scatter_(1, labels, 1.0).to(device),
        in_buffer=torch.tensor([*in_buffer, *repeat(False, n - len(in_buffer))]).to(device),
        sample_ids=torch.arange(n),
    )


class MadeUpRun:
    """A method that goes through three tasks of 3, 2 and 2 classes.

    Args:
        model: The method's class.
        net: The network, with 7 outputs; by default the one that the settings name.
        device: Device of the network and the batches.
        batch_size: Images per batch. From the second task on, every second one is a memory if the
            method mixes memories into batches.
        **settings: Settings of the method.

    Attributes:
        method: The method, before its first task.
    """

    def __init__(
        self,
        model: type[BaseMethod],
        net: nn.Module | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 4,
        **settings: Any,
    ) -> None:
        self.device = torch.device(device)
        self.batch_size = batch_size
        settings = {"n_layers": 8, "dataset": "iirc_cifar100", "lr": 0.1, **settings}
        self.method = model([len(task) for task in TASKS], CLASS_NAMES_TO_IDX, settings, net)
        self.method.to(self.device).to(memory_format=torch.channels_last)
        self._seen: tuple[str, ...] = ()

    def begin_task(self) -> Batch:
        """Start the next task, and return a batch of it."""
        method, task_id = self.method, self.method.cur_task_id + 1
        n_seen = len(self._seen) + len(TASKS[task_id])
        memories = None
        if self._seen and not method.replay_in_batches:
            memories = repeat(self._batch(n_seen, replayed=True))
        self._seen += TASKS[task_id]
        method.prepare_model_for_new_task(
            MadeUpSamples(TASKS[task_id], task_id, self.device), memory_batches=memories
        )
        method.train()
        self._tally = Tally(n_seen, self.device, with_scores=False)
        self._losses: list[torch.Tensor] = []
        batch = self._batch(n_seen, replayed=task_id > 0 and method.replay_in_batches)
        return self._with_draws(batch, n_seen)

    def _with_draws(self, batch: Batch, n_seen: int) -> Batch:
        """Return a batch with the memories that the method draws in each step."""
        draws = []
        for n in self.method.draw_sizes(self.batch_size):
            memories = made_up_batch(n, n_seen, self.device)
            columns = {
                name: torch.zeros(n, width, dtype=getattr(torch, dtype), device=self.device)
                for name, width, dtype in self.method.memory_columns()
            }
            draws.append((memories, columns))
        return batch_with_draws(batch, *draws) if draws else batch

    def _batch(self, n_seen: int, *, replayed: bool) -> Batch:
        in_buffer = (False, True) * self.batch_size if replayed else ()
        return made_up_batch(self.batch_size, n_seen, self.device, in_buffer[: self.batch_size])

    def stages(self) -> Iterator[Stage]:
        """Iterate over the stages of the current task, each prepared, and finished afterwards."""
        method = self.method
        samples = MadeUpSamples(TASKS[method.cur_task_id], method.cur_task_id, self.device)
        memories = MadeUpSamples(self._seen, method.cur_task_id, self.device)
        for stage in method.stages_of_task(method.cur_task_id):
            method.prepare_stage(samples, buffer=memories)
            method.train()
            yield stage
            method.finish_stage()

    def end_task(self) -> None:
        """End the current task, with memories of all classes so far."""
        memories = MadeUpSamples(self._seen, self.method.cur_task_id, self.device)
        self.method.consolidate_epoch_knowledge(0.5)
        self.method.consolidate_task_knowledge(buffer=memories)
        if self.method.config.calibrate_thresholds:
            self.method.calibrate(memories)

    def train(self, batch: Batch) -> None:
        """Do for one batch what an epoch does: a training step, and metrics of its predictions."""
        predictions, loss = self.method.training_step(batch)
        self._losses.append(loss * len(batch))
        self._tally.add(Outputs(predictions, batch.targets.bool()))

    def evaluate(self, batch: Batch) -> None:
        """Do for one batch what an evaluation does."""
        decision = self.method.config.decision
        tally = Tally(self.method.n_seen_classes, self.device, decision=decision)
        with self.method.inference():
            for outputs in outputs_of(self.method, [batch]):
                tally.add(outputs)
                confusion_counts(outputs.predictions, outputs.targets)
