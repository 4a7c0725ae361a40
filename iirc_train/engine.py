"""The training loop: view → loader → method ↔ buffer → metrics. Knows no method by name."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch.nn.parallel import DistributedDataParallel

from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.benchmarks import load_benchmark
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import CheckpointError, ConfigurationError, TrainingError
from iirc_data.loader import Batch, Engine, Loader, make_engine
from iirc_data.shards import ShardStore
from iirc_data.task_view import TaskSequence, TaskView
from iirc_train.buffer.selection import memories_of_epoch
from iirc_train.checkpoint import (
    load_checkpoint,
    random_state,
    save_checkpoint,
    seed_random_generators,
    set_random_state,
)
from iirc_train.config import ExperimentConfig
from iirc_train.distributed import (
    broadcast_buffers,
    choose_device,
    gathered,
    process_group,
    rank,
    total,
    wait_for_all,
    world_size,
)
from iirc_train.evaluation import evaluate_tasks, evaluate_view
from iirc_train.methods import get_method
from iirc_train.metrics import compute_metrics
from iirc_train.progress import TrainingProgress
from iirc_train.run_directory import BUFFER_NAME, RunDirectory
from iirc_train.task_data import ImageReader, MemoryData, TaskData

FIRST_TASK_EPOCHS = 2  # the first task gets twice as many epochs, as published
HERDING_BATCH_SIZE = 256
MEMORY_STREAM = 1  # tells the stream of memories from other things drawn from the seed
MONITOR = "modified_jaccard_sim"  # of in-task validation: plateaus and best models go by it


class Position(NamedTuple):
    """Where a run stands.

    Attributes:
        task_id: The task that comes next.
        epochs: How many of its epochs are done.
    """

    task_id: int = 0
    epochs: int = 0


def run_experiment(config: ExperimentConfig, output: Path, console: Console) -> Path:
    """Train a method through all tasks of a schedule, evaluating after each.

    Args:
        config: The run's configuration.
        output: Folder for the run; must not hold one yet.
        console: Where progress is shown.

    Returns:
        The run's folder.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """
    device = choose_device(config.device)
    with process_group(device):
        RunDirectory.check_unused(output)
        wait_for_all()
        experiment = Experiment(config, output / BUFFER_NAME)
        run = RunDirectory.create(output, config)
        experiment.rewind(run)
        experiment.run(run, Position(), console)
    return output


def resume_experiment(output: Path, console: Console) -> Path:
    """Go on with a run from its last checkpoint; a finished run is left as it is.

    Args:
        output: The run's folder.
        console: Where progress is shown.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: The folder holds no run.
        CheckpointError: The checkpoint is damaged, or of other data.
        IIRCError: Benchmark or data are wrong.
    """
    run, config = RunDirectory.open(output)
    with process_group(choose_device(config.device)):
        experiment = Experiment(config, output / BUFFER_NAME)
        position = experiment.rewind(run)
        experiment.run(run, position, console)
    return output


class Experiment:
    """What a run works with: data, method, buffer.

    Args:
        config: The run's configuration.
        buffer_dir: Folder of the replay buffer; None keeps it in memory.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """

    def __init__(self, config: ExperimentConfig, buffer_dir: Path | None = None) -> None:
        seed_random_generators(config.seed)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.config = config
        self.batch_size = _share_of_batch(config.batch_size)
        self.device = choose_device(config.device)
        self.benchmark = load_benchmark(config.benchmark)
        self.store = ShardStore.open(config.data)
        self.transforms = TRANSFORM_PRESETS[self.benchmark.transforms]
        self.decoder = make_engine(config.engine, self.device)
        self.memory_decoder: Engine | None = None
        self.splits = {
            split: self._sequence(split) for split in (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)
        }
        parts = get_method(config.method)
        self.method = parts.model(
            [len(task) for task in self.splits[TRAIN].tasks],
            self.class_names_to_idx,
            config.model_copy(update={"dataset": self.benchmark.transforms}),
        )
        # images come channels-last: convolutions are faster with their weights likewise
        self.method.to(self.device).to(memory_format=torch.channels_last)
        if config.precision == "bf16" or (
            config.precision == "auto" and self.device.type == "cuda"
        ):
            self.method.autocast_dtype = torch.bfloat16
        if config.compile:
            self.method.net.compile()
        self.buffer = parts.buffer(config, buffer_dir=buffer_dir)
        self._best: dict[str, Any] | None = None

    def _sequence(self, split: SplitName) -> TaskSequence:
        learned = split in (TRAIN, INTASK_VALID)
        return TaskSequence.from_table(
            self.benchmark,
            self.store.manifest,
            self.store.table,
            split,
            schedule=self.config.schedule,
            joint=self.config.joint,
            complete_information=self.config.complete_information if learned else None,
            samples_per_class=self.config.samples_per_class if split == TRAIN else None,
        )

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.splits[TRAIN])

    @property
    def class_names_to_idx(self) -> dict[str, int]:
        """Index of each class, in order of appearance."""
        return self.splits[TRAIN].class_names_to_idx

    def run(self, run: RunDirectory, position: Position, console: Console) -> None:
        """Learn the tasks from a position on, evaluating after each."""
        title = f"{self.config.method} on {self.benchmark.name}"
        console = console if rank() == 0 else Console(quiet=True)
        with TrainingProgress(console, title, self.n_tasks, position.task_id) as progress:
            for task_id in range(position.task_id, self.n_tasks):
                done = position.epochs if task_id == position.task_id else 0
                self.learn_task(task_id, run, progress, done)
                progress.task_done(task_id, self.evaluate(task_id, run))
                self._save(run, Position(task_id + 1))
                self.buffer.collect_garbage()

    def learn_task(
        self, task_id: int, run: RunDirectory, progress: TrainingProgress, epochs_done: int = 0
    ) -> None:
        """Train on one task, then choose its memories.

        Args:
            task_id: The task.
            run: Where to write metrics and checkpoints.
            progress: Where to show progress.
            epochs_done: Epochs of the task that were trained before.

        Raises:
            ConfigurationError: The task shows no sample.
            TrainingError: The loss is no number any more.
        """
        view = self._view(TRAIN, task_id)
        data = TaskData(self.splits[TRAIN].view(task_id), self.reader(self.decoder))
        self._check_samples(task_id, len(view), len(data))
        loader = self.training_loader(view, 0)
        if epochs_done:
            stream = self._memory_batches(view, epochs_done * len(loader))
            self.method.resume_task(memory_batches=stream)
        else:
            self._best = None
            self.method.prepare_model_for_new_task(
                data, batch_size=HERDING_BATCH_SIZE, memory_batches=self._memory_batches(view)
            )
        self._connect_processes()
        epochs = self.config.epochs_per_task
        first_epoch = epochs * (task_id + FIRST_TASK_EPOCHS - 1) if task_id else 0
        n_epochs = epochs if task_id else epochs * FIRST_TASK_EPOCHS
        progress.begin_task(
            task_id, data.cur_task, n_epochs * len(loader), epochs_done * len(loader)
        )
        for epoch in range(epochs_done, n_epochs):
            loader = self.training_loader(view, first_epoch + epoch)
            self._learn_epoch(task_id, epoch, loader, run, progress)
            if (
                self.config.checkpoint_interval
                and not (epoch + 1) % self.config.checkpoint_interval
            ):
                self._save(run, Position(task_id, epoch + 1))
        if self._best is not None:
            self.method.net.load_state_dict(self._best["net"])
        self.buffer.update_buffer_new_task(data, method=self.method, batch_size=HERDING_BATCH_SIZE)
        memories = MemoryData(self.buffer, view, self.reader(self.decoder))
        self.method.consolidate_task_knowledge(
            buffer=memories, device=self.device, batch_size=HERDING_BATCH_SIZE
        )

    def evaluate(self, task_id: int, run: RunDirectory) -> dict[str, float]:
        """Validate and test on every task seen so far, and on all their classes together.

        Returns:
            The test metrics over all seen classes, each sample counted once.
        """
        records: list[dict[str, Any]] = []
        for split in (POSTTASK_VALID, TEST):
            if len(self.splits[split].view(range(task_id + 1))):
                records += evaluate_tasks(
                    self.method, self.splits[split], split, task_id, self._evaluation_loader
                )
        for record in records:
            run.add_metrics(**record)
        return records[-1]

    def rewind(self, run: RunDirectory) -> Position:
        """Take over the last checkpoint of a run; what the run wrote after it is forgotten.

        Returns:
            Where the run stands.

        Raises:
            CheckpointError: The checkpoint is damaged, or of other data.
        """
        if not run.checkpoint.exists():
            run.rewind({"metrics.jsonl": 0, "timings.jsonl": 0})
            self.buffer.load_buffer_state_dict({"generation": 0, "counts": {}})
            return Position()
        state = load_checkpoint(run.checkpoint, self.device)
        if state["dataset"] != self.store.manifest.digest:
            raise CheckpointError(
                f"{run.path} was trained on dataset {state['dataset'][:12]}…, {self.config.data} "
                f"holds {self.store.manifest.digest[:12]}…: give the same shards back"
            )
        torch.set_num_threads(state["threads"])
        self.method.load_method_state_dict(state["method"])
        self.buffer.load_buffer_state_dict(state["buffer"])
        self._best = state["best"]
        run.rewind(state["sizes"])
        set_random_state(state["random"])
        return Position(*state["position"])

    def _save(self, run: RunDirectory, position: Position) -> None:
        if rank() == 0:
            state = {
                "dataset": self.store.manifest.digest,
                "position": tuple(position),
                "method": self.method.method_state_dict(),
                "best": self._best,
                "buffer": self.buffer.buffer_state_dict(),
                "random": random_state(),
                "threads": torch.get_num_threads(),
                "sizes": run.sync(),
            }
            save_checkpoint(run.checkpoint, state)
            if self.config.save_each_task_model and not position.epochs:
                save_checkpoint(run.task_checkpoint(position.task_id - 1), state)
        wait_for_all()

    def _learn_epoch(
        self,
        task_id: int,
        epoch: int,
        loader: Loader,
        run: RunDirectory,
        progress: TrainingProgress,
    ) -> None:
        started = time.perf_counter()
        record = {"task": task_id, "epoch": epoch, "lr": self.method.get_last_lr()[0]}
        record |= self.train_epoch(loader, progress)
        seconds = time.perf_counter() - started
        if not math.isfinite(record["loss"]):
            raise TrainingError(
                f"the loss of task {task_id}, epoch {epoch} is {record['loss']}: lower the "
                f"learning rate ({record['lr']}), or use precision fp32"
            )
        run.add_metrics(kind="epoch", split=TRAIN, **record)
        run.add_timing(task=task_id, epoch=epoch, seconds=seconds, images=loader.n_samples)
        progress.epoch_done(record, loader.n_samples / seconds)
        val_metric = None
        valid = self._view(INTASK_VALID, task_id)
        if len(valid):
            metrics = evaluate_view(self.method, valid, self._evaluation_loader)
            run.add_metrics(kind="epoch", split=INTASK_VALID, task=task_id, epoch=epoch, **metrics)
            val_metric = metrics[MONITOR]
            if self.config.use_best_model and (
                self._best is None or val_metric > self._best["metric"]
            ):
                weights = self.method.net.state_dict()
                self._best = {
                    "metric": val_metric,
                    "net": {name: value.detach().clone() for name, value in weights.items()},
                }
        self.method.consolidate_epoch_knowledge(val_metric)

    def train_epoch(self, loader: Loader, progress: TrainingProgress) -> dict[str, float]:
        """Train on every batch of a loader.

        Returns:
            Mean loss and metrics of what the network said before each step.
        """
        self.method.train()
        losses, predictions, targets = [], [], []
        for batch in loader:
            predicted, loss = self.method.training_step(batch)
            losses.append(loss * len(batch))
            predictions.append(predicted)
            targets.append(batch.targets.bool())
            progress.batch_done()
        broadcast_buffers(self.method.net)
        mean_loss = float(total(torch.stack(losses).sum())) / loader.n_samples
        shown = gathered(torch.cat(predictions)), gathered(torch.cat(targets))
        return {"loss": mean_loss, **compute_metrics(*shown)}

    def _view(self, split: SplitName, task_id: int) -> TaskView:
        tasks = range(task_id + 1) if self.config.incremental_joint else task_id
        return self.splits[split].view(tasks)

    def _check_samples(self, task_id: int, *counts: int) -> None:
        if min(counts) < world_size():
            names = ", ".join(self.splits[TRAIN].tasks[task_id])
            raise ConfigurationError(
                f"task {task_id} ({names}) shows {min(counts)} training samples to {world_size()} "
                "process(es): use more samples per class, or another benchmark"
            )

    def _connect_processes(self) -> None:
        if world_size() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.method.train_through(DistributedDataParallel(self.method.net, devices))

    def training_loader(self, view: TaskView, epoch: int) -> Loader:
        """Return the loader of one epoch of a view, memories mixed in where the method wants so."""
        replay = None
        if self.method.replay_in_batches and len(self.buffer):
            replay = self.buffer.replay_source(self.class_names_to_idx)
            multiplier = self.config.buffer_sampling_multiplier
            replay = replay.subset(
                memories_of_epoch(len(replay), multiplier, self.config.seed, epoch)
            )
        loader = self.reader(self.decoder).loader(
            view, self.batch_size, replay, augment=True, shuffle=True, shared=True
        )
        loader.set_epoch(epoch)
        return loader

    def _evaluation_loader(self, view: TaskView) -> Loader:
        return self.reader(self.decoder).loader(view, self.batch_size, augment=False)

    def reader(self, decoder: Engine, seed: int | None = None) -> ImageReader:
        """Return how images are read; by default with the run's seed."""
        seed = self.config.seed if seed is None else seed
        return ImageReader(self.store, self.transforms, decoder, self.device, seed)

    def _memory_batches(self, view: TaskView, first_batch: int = 0) -> Iterator[Batch] | None:
        """Return an endless stream of memories, for methods that do not mix them in batches."""
        if self.method.replay_in_batches or not len(self.buffer):
            return None
        if self.memory_decoder is None:  # a decoder serves one loader at a time
            self.memory_decoder = make_engine(self.config.engine, self.device)
        key = [self.config.seed, view.seen_up_to, MEMORY_STREAM]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        memories = MemoryData(self.buffer, view, self.reader(self.memory_decoder, seed))
        return memories.endless_batches(self.batch_size, first_batch)


def _share_of_batch(batch_size: int) -> int:
    if batch_size % world_size():
        raise ConfigurationError(
            f"batch_size {batch_size} cannot be shared evenly by {world_size()} processes"
        )
    return batch_size // world_size()
