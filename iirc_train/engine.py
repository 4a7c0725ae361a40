"""The training loop: view → loader → method ↔ buffer → metrics. Knows no method by name."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.benchmarks import load_benchmark
from iirc_data.definitions import INTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch, Engine, Loader, make_engine, make_loader
from iirc_data.shards import ShardStore
from iirc_data.task_view import TaskSequence, TaskView
from iirc_train.config import ExperimentConfig
from iirc_train.methods import get_method
from iirc_train.metrics import compute_metrics
from iirc_train.progress import TrainingProgress
from iirc_train.run_directory import BUFFER_NAME, RunDirectory
from iirc_train.task_data import ImageReader, MemoryData, TaskData

FIRST_TASK_EPOCHS = 2  # the first task gets twice as many epochs, as published
HERDING_BATCH_SIZE = 256
MEMORY_STREAM = 1  # tells the stream of memories from other things drawn from the seed


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
    RunDirectory.check_unused(output)
    experiment = Experiment(config, output / BUFFER_NAME if config.buffer == "disk" else None)
    run = RunDirectory(output, config)
    title = f"{config.method} on {experiment.benchmark.name}"
    with TrainingProgress(console, title, experiment.n_tasks) as progress:
        for task_id in range(experiment.n_tasks):
            experiment.learn_task(task_id, run, progress)
            progress.task_done(task_id, experiment.evaluate(task_id, run))
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
        torch.manual_seed(config.seed)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.config = config
        self.device = choose_device(config.device)
        self.benchmark = load_benchmark(config.benchmark)
        self.store = ShardStore.open(config.data)
        self.transforms = TRANSFORM_PRESETS[self.benchmark.transforms]
        self.decoder = make_engine(config.engine, self.device)
        self.memory_decoder: Engine | None = None
        self.splits = {split: self._sequence(split) for split in (TRAIN, INTASK_VALID, TEST)}
        parts = get_method(config.method)
        self.method = parts.model(
            [len(task) for task in self.splits[TRAIN].tasks],
            self.class_names_to_idx,
            config.model_copy(update={"dataset": self.benchmark.transforms}),
        )
        # images come channels-last: convolutions are faster with their weights likewise
        self.method.to(self.device).to(memory_format=torch.channels_last)
        self.buffer = parts.buffer(config, buffer_dir=buffer_dir)

    def _sequence(self, split: SplitName) -> TaskSequence:
        return TaskSequence.from_table(
            self.benchmark,
            self.store.manifest,
            self.store.table,
            split,
            schedule=self.config.schedule,
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

    def learn_task(self, task_id: int, run: RunDirectory, progress: TrainingProgress) -> None:
        """Train on one task, then choose its memories."""
        view = self.splits[TRAIN].view(task_id)
        if not len(view):
            raise ConfigurationError(
                f"task {task_id} ({', '.join(view.task_class_names)}) shows no training sample: "
                "use more samples per class, or another benchmark"
            )
        data = TaskData(view, self._reader(self.decoder, self.config.seed))
        self.method.prepare_model_for_new_task(
            data, batch_size=HERDING_BATCH_SIZE, memory_batches=self._memory_batches(view)
        )
        loader = self._training_loader(view)
        valid = self._evaluation_loader(self.splits[INTASK_VALID].view(task_id))
        epochs = self.config.epochs_per_task
        first_epoch = epochs * (task_id + FIRST_TASK_EPOCHS - 1) if task_id else 0
        n_epochs = epochs if task_id else epochs * FIRST_TASK_EPOCHS
        progress.begin_task(task_id, data.cur_task, n_epochs * len(loader))
        for epoch in range(n_epochs):
            loader.set_epoch(first_epoch + epoch)
            started = time.perf_counter()
            record = {"task": task_id, "epoch": epoch, "lr": self.method.get_last_lr()[0]}
            record |= self._train_epoch(loader, progress)
            seconds = time.perf_counter() - started
            run.add_metrics(kind="epoch", split=TRAIN, **record)
            run.add_timing(task=task_id, epoch=epoch, seconds=seconds, images=loader.n_samples)
            progress.epoch_done(record, loader.n_samples / seconds)
            val_metric = None
            if valid.n_samples:
                valid_metrics = self._metrics(valid)
                run.add_metrics(
                    kind="epoch", split=INTASK_VALID, task=task_id, epoch=epoch, **valid_metrics
                )
                val_metric = valid_metrics["modified_jaccard_sim"]
            self.method.consolidate_epoch_knowledge(val_metric)
        self.buffer.update_buffer_new_task(data, method=self.method, batch_size=HERDING_BATCH_SIZE)
        memories = MemoryData(self.buffer, view, self._reader(self.decoder, self.config.seed))
        self.method.consolidate_task_knowledge(
            buffer=memories, device=self.device, batch_size=HERDING_BATCH_SIZE
        )

    def evaluate(self, task_id: int, run: RunDirectory) -> dict[str, float]:
        """Test on every task seen so far, and on all their classes together.

        Returns:
            The metrics over all seen classes, each sample counted once.
        """
        sequence = self.splits[TEST]
        everything = sequence.view(range(task_id + 1))
        predictions, targets = self._predict(self._evaluation_loader(everything))
        for seen in range(task_id + 1):
            shown = sequence.view(seen, seen_up_to=task_id).sample_ids
            rows = np.searchsorted(everything.sample_ids, shown)
            run.add_metrics(
                kind="evaluation",
                split=TEST,
                after_task=task_id,
                task=seen,
                n_samples=len(rows),
                **compute_metrics(predictions[rows], targets[rows]),
            )
        metrics = compute_metrics(predictions, targets)
        run.add_metrics(
            kind="evaluation",
            split=TEST,
            after_task=task_id,
            task="all",
            n_samples=len(everything),
            **metrics,
        )
        return metrics

    def _training_loader(self, view: TaskView) -> Loader:
        replay = None
        if self.method.replay_in_batches and len(self.buffer):
            replay = self.buffer.replay_source(self.class_names_to_idx)
        return make_loader(
            view,
            self.store,
            replay,
            transforms=self.transforms,
            train=True,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            device=self.device,
            engine=self.decoder,
        )

    def _reader(self, decoder: Engine, seed: int) -> ImageReader:
        return ImageReader(self.store, self.transforms, decoder, self.device, seed)

    def _memory_batches(self, view: TaskView) -> Iterator[Batch] | None:
        """Return an endless stream of memories, for methods that do not mix them in batches."""
        if self.method.replay_in_batches or not len(self.buffer):
            return None
        if self.memory_decoder is None:  # a decoder serves one loader at a time
            self.memory_decoder = make_engine(self.config.engine, self.device)
        key = [self.config.seed, view.seen_up_to, MEMORY_STREAM]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        memories = MemoryData(self.buffer, view, self._reader(self.memory_decoder, seed))
        return memories.endless_batches(self.config.batch_size)

    def _evaluation_loader(self, view: TaskView) -> Loader:
        return make_loader(
            view,
            self.store,
            transforms=self.transforms,
            train=False,
            batch_size=self.config.batch_size,
            device=self.device,
            engine=self.decoder,
        )

    def _train_epoch(self, loader: Loader, progress: TrainingProgress) -> dict[str, float]:
        self.method.train()
        losses, predictions, targets = [], [], []
        for batch in loader:
            predicted, loss = self.method.training_step(batch)
            losses.append(loss * len(batch))
            predictions.append(predicted)
            targets.append(batch.targets.bool())
            progress.batch_done()
        mean_loss = float(torch.stack(losses).sum()) / loader.n_samples
        return {"loss": mean_loss, **compute_metrics(torch.cat(predictions), torch.cat(targets))}

    def _metrics(self, loader: Loader) -> dict[str, float]:
        return compute_metrics(*self._predict(loader))

    @torch.no_grad()
    def _predict(self, batches: Iterable[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        self.method.eval()
        predictions, targets = [], []
        for batch in batches:
            predictions.append(self.method(batch.images))
            targets.append(batch.targets.bool())
        return torch.cat(predictions), torch.cat(targets)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``"auto"`` is the GPU where there is one.

    Raises:
        ConfigurationError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"unknown device {name!r}: give cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device {name!r} asked for, but torch sees no CUDA device")
    return device
