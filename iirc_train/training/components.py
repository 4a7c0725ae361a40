"""What a run works with: data, method and buffer, and the loaders between them."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.coverage import check_images
from iirc_data.definitions import INTASK_VALID, POSTTASK_VALID, TEST, TRAIN, SplitName
from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_data.image_sizes import check_image_sizes
from iirc_data.loader import Batch, Loader, make_engine
from iirc_data.shards import ShardStore
from iirc_data.task_view import TaskSequence, TaskView
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.own_settings import without_settings_of_others
from iirc_train.methods import get_method
from iirc_train.methods.settings import checked_settings, method_configs
from iirc_train.run.checkpoint import random_state, seed_random_generators, set_random_state
from iirc_train.run.resolved import resolved_precision
from iirc_train.runtime.distributed import choose_device, share_of, world_size
from iirc_train.training.task_data import ImageReader, MemoryData, TaskData

MEMORY_STREAM = 1  # tells the stream of memories from other things drawn from the seed


SPLITS: tuple[SplitName, ...] = (TRAIN, INTASK_VALID, POSTTASK_VALID, TEST)


def task_sequences(
    config: ExperimentConfig, benchmark: Benchmark, store: ShardStore
) -> dict[SplitName, TaskSequence]:
    """Return what a run's tasks show of each split."""
    return {
        split: TaskSequence.from_table(
            benchmark,
            store.manifest,
            store.table,
            split,
            schedule=config.schedule,
            joint=config.joint,
            complete_information=(
                config.complete_information if split in (TRAIN, INTASK_VALID) else None
            ),
            samples_per_class=config.samples_per_class if split == TRAIN else None,
        )
        for split in SPLITS
    }


class Experiment:
    """Data, method and buffer of a run.

    Args:
        config: The run's configuration.
        buffer_dir: Folder of the replay buffer; None keeps it in memory.
        precision: Arithmetic of the network instead of the configuration's: a run that is gone on
            with may be given another one, and a repeated one the same.

    Attributes:
        precision: What the network computes in, ``"fp32"`` or ``"bf16"``.
        resumed: What the settings came to when the state that was loaded was saved; nothing in a
            new experiment. See :attr:`resolved`.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        buffer_dir: Path | None = None,
        precision: str | None = None,
    ) -> None:
        seed_random_generators(config.seed)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.config = config = checked_settings(config)
        self.batch_size = _share_of_batch(config.batch_size)
        self.device = choose_device(config.device)
        self.benchmark = load_benchmark(config.benchmark)
        self.store = ShardStore.open(config.data)
        self.transforms = TRANSFORM_PRESETS[self.benchmark.transforms]
        self.decoder = make_engine(config.engine, self.device)
        self.splits = task_sequences(config, self.benchmark, self.store)
        self._check_views()
        self._check_image_sizes()
        parts = get_method(config.method)
        self.method = parts.model(
            [len(task) for task in self.splits[TRAIN].tasks],
            self.class_names_to_idx,
            config.model_copy(update={"dataset": self.benchmark.transforms}),
        )
        # images come channels-last: convolutions are faster with their weights likewise
        self.method.to(self.device).to(memory_format=torch.channels_last)
        self.resumed: Mapping[str, Any] = {}
        self._precision_asked = precision is not None
        self._use_precision(config.precision if precision is None else precision)
        self.buffer = parts.buffer(config, buffer_dir=buffer_dir)

    def _use_precision(self, precision: str) -> None:
        self.precision = resolved_precision(precision, self.device)
        self.method.autocast_dtype = torch.bfloat16 if self.precision == "bf16" else None

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.splits[TRAIN])

    @property
    def resolved(self) -> dict[str, Any]:
        """What the settings came to here, by name; plain values."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "decoder": self.decoder.name,
            "processes": world_size(),
            "threads": torch.get_num_threads(),
            "network": f"{type(self.method.net).__name__}-{self.config.n_layers}",
        }

    @property
    def class_names_to_idx(self) -> dict[str, int]:
        """Index of each class, in order of appearance."""
        return self.splits[TRAIN].class_names_to_idx

    def view(self, split: SplitName, task_id: int) -> TaskView:
        """Return what a task's epochs show of a split."""
        tasks = range(task_id + 1) if self.config.incremental_joint else task_id
        return self.splits[split].view(tasks)

    def task_data(self, task_id: int) -> TaskData:
        """Return the data that a task introduces."""
        return TaskData(self.splits[TRAIN].view(task_id), self._reader())

    def memory_data(self, task_id: int) -> MemoryData:
        """Return the memories of the buffer as they are now, with a task's labels."""
        view = self.splits[TRAIN].view(task_id)
        return MemoryData(self.buffer, view, self._reader())

    def connect_network(self) -> None:
        """Compile the network as it is now, where asked for; let the processes share its gradient.

        To be called whenever a task was prepared, for that may change the network.
        """
        if self.config.compile:
            torch.compiler.reset()  # what earlier heads were compiled to counts against a limit
            self.method.net.compile()
        if world_size() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.method.train_through(DistributedDataParallel(self.method.net, devices))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all parts as tensors and plain values."""
        return {
            **self._identity,
            "method": self.method.method_state_dict(),
            "buffer": self.buffer.buffer_state_dict(),
            "random": random_state(),
            "threads": torch.get_num_threads(),
            "resolved": self.resolved,
        }

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What must not change while a run is broken off."""
        everything = range(self.n_tasks)
        # the other free settings stand in it for earlier releases, which compare them
        elsewhere = ("benchmark", "data", "device", "resident")
        settings = self.config.values()
        return {
            "dataset": self.store.manifest.digest,
            "benchmark": {
                "tasks": [list(task) for task in self.splits[TRAIN].tasks],
                **{split: tasks.view(everything).digest() for split, tasks in self.splits.items()},
            },
            "transforms": self.benchmark.transforms,
            "configuration": {k: v for k, v in settings.items() if k not in elsewhere},
        }

    def _check_views(self) -> None:
        check_images(self.benchmark, self.store.manifest, self.splits[TRAIN].tasks)
        by_validation = [
            name
            for name in ("use_best_model", "reduce_lr_on_plateau")
            if getattr(self.config, name)
        ]
        for task_id, task in enumerate(self.splits[TRAIN].tasks):
            name = f"task {task_id} ({', '.join(task)})"
            n_samples = len(self.splits[TRAIN].view(task_id))
            if n_samples < world_size():
                raise ConfigurationError(
                    f"{name} shows {n_samples} training samples to {world_size()} process(es): "
                    "use more samples per class, or another benchmark"
                )
            if by_validation and not len(self.view(INTASK_VALID, task_id)):
                raise ConfigurationError(
                    f"{by_validation[0]} goes by in-task validation, of which {name} has no "
                    "sample: raise the benchmark's intask_valid_ratio"
                )

    def _check_image_sizes(self) -> None:
        everything, table = range(self.n_tasks), self.store.table
        shown: dict[str, NDArray[np.int64]] = {
            split: tasks.view(everything).sample_ids for split, tasks in self.splits.items()
        }
        check_image_sizes(
            self.transforms,
            {
                split: np.stack([table.height[rows], table.width[rows]], axis=1).astype(np.int32)
                for split, rows in shown.items()
            },
            lambda split, number: self.store.name(int(shown[split][number])),
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; only a new experiment can.

        Raises:
            CheckpointError: The state is of other data, or another method's or network's.
            ConfigurationError: The device cannot compute in the state's precision.
            BufferStorageError: The buffer's folder lacks the memories.
        """
        for name, ours in self._identity.items():
            theirs = state.get(name, ours) if name == "transforms" else state[name]
            if name == "configuration":
                ours, theirs = (_defining(s, self.config.method) for s in (ours, theirs))
            if theirs != ours:
                raise CheckpointError(
                    f"the run was begun with another {name} ({_shown(theirs, ours)}, now "
                    f"{_shown(ours, theirs)}): give the same one back"
                )
        self._take_over_resolved(state)
        self.method.load_method_state_dict(state["method"])
        self.buffer.load_buffer_state_dict(state["buffer"])
        set_random_state(state["random"])

    def _take_over_resolved(self, state: Mapping[str, Any]) -> None:
        """Compute as the state's run did, but for what was asked to change."""
        before = self.resumed = dict(state.get("resolved", {}))  # earlier releases have none
        network = self.resolved["network"]
        if before.get("network", network) != network:
            raise CheckpointError(
                f"the run trains the network {before['network']}, here it would be {network}: go "
                "on with the benchmark, method and version of this package that it began with"
            )
        if "precision" in before and not self._precision_asked:
            self._use_precision(before["precision"])
        threads = int(state["threads"])
        if self.config.threads is None and before.get("processes", world_size()) == world_size():
            torch.set_num_threads(threads)

    def training_loader(self, view: TaskView) -> Loader:
        """Return the loader of a view's epochs, memories mixed in where the method wants so."""
        replay = None
        if self.method.replay_in_batches and len(self.buffer):
            replay = self.buffer.replay_source(self.class_names_to_idx)
        return self._reader().loader(
            view,
            self.batch_size,
            replay,
            replay_multiplier=self.config.buffer_sampling_multiplier,
            augment=True,
            shuffle=True,
            shared=True,
            resident=self.config.resident,
        )

    def evaluation_loader(self, view: TaskView, *, resident: bool | None = False) -> Loader:
        """Return a loader of this process's part of a view, in order, not augmented.

        Args:
            view: The samples.
            resident: Keep decoded images for further epochs; None decides by size.
        """
        part = share_of(len(view))
        mine = view.subset(np.arange(part.start, part.stop))
        reader = self._reader()
        return reader.loader(mine, self.batch_size, augment=False, resident=resident)

    def _reader(self, seed: int | None = None) -> ImageReader:
        seed = self.config.seed if seed is None else seed
        return ImageReader(self.store, self.transforms, self.decoder, self.device, seed)

    def memory_batches(self, view: TaskView, first_batch: int = 0) -> Iterator[Batch] | None:
        """Return an endless stream of memories, for methods that do not mix them in batches.

        Args:
            view: What the task shows.
            first_batch: How many batches of the stream were used before.

        Returns:
            The stream; None where memories come in batches, or there are none.
        """
        if self.method.replay_in_batches or not len(self.buffer):
            return None
        if len(self.buffer) < world_size():
            raise ConfigurationError(
                f"{len(self.buffer)} memories cannot be shared by {world_size()} processes: keep "
                "more memories, or use fewer processes"
            )
        key = [self.config.seed, view.seen_up_to, MEMORY_STREAM]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        memories = MemoryData(self.buffer, view, self._reader(seed))
        return memories.endless_batches(self.batch_size, first_batch, resident=self.config.resident)


def _share_of_batch(batch_size: int) -> int:
    if batch_size % world_size():
        raise ConfigurationError(
            f"batch_size {batch_size} cannot be shared evenly by {world_size()} processes"
        )
    return batch_size // world_size()


def _defining(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the settings that define a run of a method; those of later releases by default."""
    free = ExperimentConfig.free_settings()
    settings = without_settings_of_others(method, settings, method_configs())
    for group in (get_method(method).config, ExperimentConfig):
        fields = group.model_fields
        settings = {name: fields[name].default for name in group.setting_names()} | settings
    return {name: value for name, value in settings.items() if name not in free}


def _shown(value: Any, other: Any) -> str:
    """Show a value, or only what differs of one with many parts."""
    if isinstance(value, dict) and isinstance(other, dict):
        return ", ".join(
            f"{k}: {value[k]}" for k in value if k not in other or other[k] != value[k]
        )
    return str(value)
