"""The loaders of a run: the samples that its epochs show, its memories, and its evaluation."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from iirc_data.augment import TransformPreset
from iirc_data.definitions import TRAIN, SplitName
from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch, Decoder, Loader
from iirc_data.loader.step_loader import StepPlan
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_sequence import TaskSequence
from iirc_data.task_view import TaskView
from iirc_train.buffer import BufferBase, ReservoirBuffer
from iirc_train.buffer.choice import Choice
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.models.inference import inference_batch_size
from iirc_train.runtime.distributed import share_of, world_size
from iirc_train.training.task_data import NOTHING, ImageReader, MemoryData, TaskData

MEMORY_STREAM = 1  # separates the stream of memories from other draws of the seed


class Loaders:
    """What an experiment reads: its tasks, and the loaders of their samples and memories.

    Attributes:
        config: The run's configuration.
        store: The images.
        samples: The images of the run, or their features.
        splits: The tasks of each split.
        transforms: Transforms of each dataset.
        decoder: Decodes the samples.
        device: Device of the batches.
        method: The method.
        buffer: Its memories.
        batch_size: Number of samples of a batch of this process.
        image_size: Height and width of the samples.
    """

    config: ExperimentConfig
    store: SampleStore
    samples: SampleStore
    splits: Mapping[SplitName, TaskSequence]
    transforms: dict[str, TransformPreset]
    decoder: Decoder
    device: torch.device
    method: BaseMethod
    buffer: BufferBase
    batch_size: int
    image_size: int

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.splits[TRAIN])

    @property
    def class_names_to_idx(self) -> dict[str, int]:
        """Class name to index, in order of appearance."""
        return self.splits[TRAIN].class_names_to_idx

    def view(self, split: SplitName, task_id: int) -> TaskView:
        """Return the view of a split that the epochs of a task show."""
        tasks = range(task_id + 1) if self.config.incremental_joint else task_id
        return self.splits[split].view(tasks)

    def task_data(self, task_id: int) -> TaskData:
        """Return the training samples that a task introduces."""
        return TaskData(self.splits[TRAIN].view(task_id), self._reader())

    def memory_data(self, task_id: int) -> MemoryData:
        """Return the current memories of the buffer, with the labels visible in a task."""
        view = self.splits[TRAIN].view(task_id)
        return MemoryData(self.buffer, view, self._reader())

    def inference_batch_size(self, at_least: int) -> int:
        """Return the batch size for evaluation and herding.

        Args:
            at_least: The batch size on a CPU.
        """
        free = None
        if self.device.type == "cuda":
            cached = torch.cuda.memory_reserved(self.device)
            used = torch.cuda.memory_allocated(self.device)
            free = torch.cuda.mem_get_info(self.device)[0] + cached - used
        return inference_batch_size(at_least, self.image_size, free)

    def training_loader(
        self,
        view: TaskView,
        *,
        normalize: bool = True,
        choice: Choice | None = None,
        replay_multiplier: float | None = None,
    ) -> Loader:
        """Return the loader of a view's epochs, with memories mixed in if the method asks.

        Args:
            view: The samples.
            normalize: Normalise images to float32; otherwise they are uint8.
            choice: The samples and memories to show; by default all.
            replay_multiplier: Number of times an epoch shows each memory, on average; by default
                the setting ``buffer_sampling_multiplier``.
        """
        replay = None
        has_memories = self.method.replay_in_batches if choice is None else len(choice.memories)
        if has_memories and len(self.buffer):
            replay = self.buffer.replay_source(self.class_names_to_idx)
        plan = self._step_plan(view) if choice is None else None
        if choice is not None:
            view = view.subset(choice.samples)
            replay = None if replay is None else replay.subset(choice.memories)
        elif self.method.memories_only:
            view = view.subset(NOTHING)
        if replay_multiplier is None:
            replay_multiplier = self.config.buffer_sampling_multiplier
        return self._reader(normalize=normalize).loader(
            view if plan is None else plan.view,
            self.batch_size,
            replay,
            plan=plan,
            replay_multiplier=replay_multiplier,
            augment=True,
            shuffle=True,
            shared=True,
            resident=self.config.resident,
        )

    def _step_plan(self, view: TaskView) -> StepPlan | None:
        """Return what draws memories in each step of a task; None if there are none to draw.

        Raises:
            ConfigurationError: Method and buffer do not fit each other.
        """
        method = self.method
        sizes = method.draw_sizes(self.config.batch_size)
        if bool(sizes) != isinstance(self.buffer, ReservoirBuffer):
            raise ConfigurationError(
                f"method {self.config.method} draws {'memories' if sizes else 'no memories'} in "
                f"each step (draw_sizes), and its buffer is a {type(self.buffer).__name__}: a "
                "ReservoirBuffer goes with such draws, and only that"
            )
        if not isinstance(self.buffer, ReservoirBuffer):
            return None
        return self.buffer.plan(view, sizes, method.kept_epochs(view.seen_up_to))

    def evaluation_loader(self, view: TaskView, *, resident: bool | None = False) -> Loader:
        """Return a loader of this process's part of a view, in order, without augmentation.

        Args:
            view: The samples.
            resident: Keep decoded images for later epochs; None decides by size.
        """
        part = share_of(len(view))
        mine = view.subset(np.arange(part.start, part.stop))
        reader = self._reader()
        batch_size = self.inference_batch_size(self.batch_size)
        return reader.loader(mine, batch_size, augment=False, resident=resident)

    def _reader(self, seed: int | None = None, normalize: bool = True) -> ImageReader:
        seed = self.config.seed if seed is None else seed
        return ImageReader(
            self.samples,
            self.transforms,
            self.decoder,
            self.device,
            seed,
            self.config.order,
            self.config.order_blocks,
            normalize,
        )

    def announce_task(self, task_id: int, first_epoch: int) -> None:
        """Let the images of a later task be fetched when the present one needs none.

        Args:
            task_id: The task; that after the last one is ignored.
            first_epoch: Number of its first epoch, counted across tasks.
        """
        if task_id == self.n_tasks or not self.samples.is_remote:
            return
        view = self.view(TRAIN, task_id)
        if self.method.replay_in_batches:  # memories yet to be chosen determine the order
            ids = view.sample_ids
            # processes on one cache share the work: each starts elsewhere
            self.store.expect(np.roll(ids, -share_of(len(ids)).start))
        else:
            self.store.expect(self.training_loader(view).ids_of_epoch(first_epoch))

    def memory_batches(
        self, view: TaskView, first_batch: int = 0, *, normalize: bool = True
    ) -> Iterator[Batch] | None:
        """Return an endless stream of memories, for methods that do not mix them into batches.

        Args:
            view: The task's view.
            first_batch: Number of batches of the stream already used.
            normalize: Normalise images to float32; otherwise they are uint8.

        Returns:
            The stream; None if the method mixes memories into batches, or there are none.

        Raises:
            ConfigurationError: There are fewer memories than processes.
        """
        method = self.method
        if method.replay_in_batches or method.draw_sizes(1) or not len(self.buffer):
            return None
        if len(self.buffer) < world_size():
            raise ConfigurationError(
                f"{len(self.buffer)} memories cannot be split among {world_size()} processes: keep "
                "more memories, or use fewer processes"
            )
        key = [self.config.seed, view.seen_up_to, MEMORY_STREAM]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        memories = MemoryData(self.buffer, view, self._reader(seed, normalize))
        return memories.endless_batches(self.batch_size, first_batch, resident=self.config.resident)
