"""The components of a run: data, method and buffer, and the loaders between them."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.datasets import open_datasets
from iirc_data.definitions import (
    TRAIN,
    SplitName,
    current_decoder_name,
)
from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_data.loader import Batch, Decoder, Loader, make_decoder
from iirc_data.loader.features import AS_THEY_ARE, FeatureDecoder
from iirc_data.loader.make import needs_windows
from iirc_data.loader.step_loader import StepPlan
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_view import TaskView
from iirc_train.buffer import ReservoirBuffer
from iirc_train.buffer.choice import Choice
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.image_preset import benchmark_as_shown
from iirc_train.config.network import current_name, image_size, resolve_network
from iirc_train.config.setup import with_setup
from iirc_train.config.weights import NONE
from iirc_train.methods import get_method
from iirc_train.methods.settings import checked_settings
from iirc_train.models.compiled import NetworkCompiler
from iirc_train.models.inference import inference_batch_size
from iirc_train.models.networks import check_network, expected_images, make_network
from iirc_train.models.on_features import HeadOnFeatures
from iirc_train.models.weights import remembered_digest
from iirc_train.run.provenance import Surroundings
from iirc_train.run.record import SeenData
from iirc_train.run.resolved import WEIGHTS_DIGEST, resolved_graph, resolved_precision
from iirc_train.runtime.distributed import (
    averaging_gradients,
    choose_device,
    is_first_process,
    share_of,
    world_size,
)
from iirc_train.runtime.random_state import (
    random_state,
    seed_random_generators,
    set_random_state,
)
from iirc_train.training.data_checks import check_image_sizes, check_views, note_other_images
from iirc_train.training.features import (
    Progress,
    all_sample_ids,
    cached_features,
    uses_cached_features,
)
from iirc_train.training.graphed_step import CudaCapture, GraphedStep, TrainingStep
from iirc_train.training.identity import (
    defining_settings,
    saved_settings,
    shown_difference,
    shown_transforms,
    task_sequences,
    transforms_as_written,
)
from iirc_train.training.remembering import RememberingStep
from iirc_train.training.task_data import NOTHING, ImageReader, MemoryData, TaskData

MEMORY_STREAM = 1  # separates the stream of memories from other draws of the seed


class Experiment:
    """Data, method and buffer of a run; a context manager that closes the decoder.

    Args:
        config: The run's configuration.
        buffer_dir: Folder of the replay buffer; None keeps it in memory.
        precision: Precision that replaces the configuration's: a resumed run may change it, and a
            repeated run keeps the original one.
        progress: Shows the progress of computing features; by default, it is logged.
        loads_weights: Whether the network starts from the setting ``weights``; not needed where
            a state is loaded, which contains them. A run on cached features always needs them.
        all_features: Compute the features of all images, not only of those of the benchmark.

    Attributes:
        precision: Precision of the network, ``"fp32"`` or ``"bf16"``.
        network: Name of the network.
        samples: The images of the run, or their features.
        features: Digest of the features, if the run reads those instead of images.
        weights_digest: Digest of the weights that the network started from; None for random ones.
        graph: Whether training steps on resident images are captured, ``"on"`` or ``"off"``.
        resumed: :attr:`resolved` of the experiment whose state was loaded; empty in a new one.

    Raises:
        IIRCError: Configuration, benchmark or data are wrong.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        buffer_dir: Path | None = None,
        precision: str | None = None,
        progress: Progress | None = None,
        *,
        loads_weights: bool = True,
        all_features: bool = False,
    ) -> None:
        seed_random_generators(config.seed)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        config = checked_settings(config)
        self.batch_size = _share_of_batch(config.batch_size)
        self.device = choose_device(config.device)
        expected = expected_images(config.network, config.weights)
        self.benchmark = benchmark_as_shown(config.benchmark, config.image_preset, expected)
        if expected is not None and is_first_process():
            note_other_images(self.benchmark, config.network, expected)
        losses = get_method(config.method).model.losses
        config = with_setup(config, self.benchmark.setup, losses, config.method)
        self.config = config
        self.features: str | None = None
        self.store = open_datasets(self.benchmark, config.data, cache_size=config.cache_size)
        presets = self.benchmark.image_presets.values()
        self.presets = dict(zip(self.store.datasets, presets, strict=True))
        self.transforms = {
            name: shown_transforms(preset.transforms, augment=config.augment)
            for name, preset in self.presets.items()
        }
        self.decoder: Decoder = make_decoder(
            config.decoder, self.device, hw_decoder_load=config.hw_decoder_load
        )
        self.splits = task_sequences(config, self.benchmark, self.store)
        check_views(config, self.benchmark, self.store, self.splits)
        check_image_sizes(self.transforms, self.store, self.splits)
        parts = get_method(config.method)
        self.image_size = size = image_size(self.benchmark)
        self.network = resolve_network(config.network, config.n_layers, size)
        on_features = uses_cached_features(config, parts.model, self.presets)
        named = config.model_copy(
            update={
                "network": self.network,
                "n_layers": None,
                "weights": config.weights if loads_weights or on_features else NONE,
            }
        )
        self.samples: SampleStore = self.store
        head: torch.nn.Module | None = None
        if on_features:
            rows = np.arange(len(self.store)) if all_features else all_sample_ids(self.splits)
            net = make_network(named, len(self.class_names_to_idx))
            head = self._on_features(net, rows, progress)
        self.method = parts.model(
            [len(task) for task in self.splits[TRAIN].tasks],
            self.class_names_to_idx,
            named,
            head,
        )
        self.weights_digest = remembered_digest(self.method.net)
        if head is None:
            check_network(self.method.net, self.network, size)
        # images are channels-last: convolutions are faster if their weights are, too
        self.method.to(self.device).to(memory_format=torch.channels_last)
        self.resumed: Mapping[str, Any] = {}
        self._precision_asked = precision is not None
        self._use_precision(config.precision if precision is None else precision)
        self.graph = resolved_graph(
            config,
            is_capturable=self.method.is_capturable(),
            device=self.device,
            processes=world_size(),
        )
        self._graphed_step: GraphedStep | None = None
        self._compiler: NetworkCompiler | None = None
        self._connected: tuple[torch.nn.Module | None, torch.nn.Module | None] = None, None
        if self.device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
            # the shape of training batches is always the same
            torch.backends.cudnn.benchmark = True
        self.buffer = parts.buffer(config, buffer_dir=buffer_dir)
        self.buffer.connect(
            self.samples,
            self.class_names_to_idx,
            seed=config.seed,
            columns=self.method.memory_columns(),
            device=self.device,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder's threads and memory; no image can be read afterwards."""
        if self._graphed_step is not None:
            self._graphed_step.release()
        self.decoder.close()
        self.store.close()

    def _on_features(
        self, net: torch.nn.Module, sample_ids: NDArray[np.int64], progress: Progress | None
    ) -> torch.nn.Module:
        """Replace images by the features that a network computes; return its head."""
        check_network(net, self.network, self.image_size)
        self.samples = features = cached_features(
            self.config,
            self.network,
            net,
            self.store,
            self.presets,
            sample_ids,
            decoder=self.decoder,
            device=self.device,
            progress=progress,
        )
        self.decoder.close()
        self.decoder = FeatureDecoder(features.size)
        self.transforms = dict.fromkeys(self.transforms, AS_THEY_ARE)
        self.image_size = 1
        self.features = features.digest_of(sample_ids)[:16]
        return HeadOnFeatures(net)

    def _use_precision(self, precision: str) -> None:
        self.precision = resolved_precision(precision, self.device, self.image_size)
        self.method.autocast_dtype = torch.bfloat16 if self.precision == "bf16" else None

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.splits[TRAIN])

    @property
    def resolved(self) -> dict[str, Any]:
        """What the settings resolve to on this machine: name to plain value."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "decoder": self.decoder.name,
            "processes": world_size(),
            "threads": torch.get_num_threads(),
            "network": self.network,
            **({} if self.weights_digest is None else {WEIGHTS_DIGEST: self.weights_digest}),
            "graph": self.graph,
            **({} if self.features is None else {"features": self.features}),
            **self.decoder.resolved(
                has_windows=any(needs_windows(t.train) for t in self.transforms.values())
            ),
        }

    @property
    def surroundings(self) -> Surroundings:
        """What a session of this experiment computes with."""
        return Surroundings(self.device, self.resolved, self.resumed)

    @cached_property
    def seen_data(self) -> SeenData:
        """Digests of the dataset and of every task view."""
        return SeenData.of(self.store, self.splits)

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

    def connect_network(self) -> None:
        """Compile the network if configured.

        Call again after a task is prepared, because that may change the network.
        """
        net: torch.nn.Module | None = None
        teacher: torch.nn.Module | None = None
        if self.config.compile:
            if self._compiler is None:
                n_images = self.method.images_per_pass(self.config.batch_size)
                self._compiler = NetworkCompiler(n_images // world_size())
            net, *teachers = self._compiler.compiled(self.method.net, self.method.old_net)
            net = self.method.as_called(net)
            teacher = teachers[0] if teachers else None
        self._connected = net, teacher
        self.method.train_through(net, teacher)

    def average_gradients(self, *, is_equal: bool = False) -> None:
        """Let several processes average their gradients; call again where a run may resume.

        DistributedDataParallel sums gradients in another order after its first step. Without a new
        one, an epoch would end in other bits after a resumption than within an unbroken run.

        Args:
            is_equal: All processes have the same parameters, so none are sent.
        """
        if world_size() > 1:
            net, teacher = self._connected
            self.method.train_through(None)  # releases the buckets of the epoch before
            net = net or self.method.as_called(self.method.net)
            averaging = averaging_gradients(net, self.device, is_equal=is_equal)
            self.method.train_through(averaging, teacher)

    def training_step(self, loader: Loader) -> TrainingStep:
        """Return the method's training step for the batches of a loader, captured if configured.

        Raises:
            ConfigurationError: ``graph`` is ``on``, and the loader does not hold resident images.
        """
        if isinstance(self.buffer, ReservoirBuffer):
            return RememberingStep(self.method, self.buffer)
        if self.graph == "off":
            return self.method.training_step
        if not loader.is_resident:  # a decoder would use the GPU during the capture
            if self.config.graph == "on":
                raise ConfigurationError(
                    f"graph: on needs resident images, got {loader.n_samples:,} images that are "
                    "decoded in every epoch: give --resident or --graph auto"
                )
            return self.method.training_step
        if self._graphed_step is None:
            capture = CudaCapture(self.device)
            self._graphed_step = GraphedStep(self.method, self.batch_size, capture)
        return self._graphed_step

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

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all components as tensors and plain values."""
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
        """What must not change between two sessions of a run."""
        everything = range(self.n_tasks)
        digests = {name: store.digest for name, store in self.store.datasets.items()}
        return {
            "dataset": digests if self.benchmark.datasets else self.store.digest,
            "benchmark": {
                "tasks": [list(task) for task in self.splits[TRAIN].tasks],
                **{split: tasks.view(everything).digest() for split, tasks in self.splits.items()},
            },
            "transforms": transforms_as_written(self.benchmark),
            "configuration": saved_settings(self.config),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state into a new experiment.

        Raises:
            CheckpointError: The state was saved with other data, another method or another network.
            ConfigurationError: The device does not support the state's precision.
            BufferStorageError: The buffer's folder lacks the state's memories.
        """
        for name, ours in self._identity.items():
            theirs = state.get(name, ours) if name == "transforms" else state[name]
            if name == "configuration":
                ours, theirs = (defining_settings(s, self.config.method) for s in (ours, theirs))
            if theirs != ours:
                raise CheckpointError(
                    f"the run started with another {name} ({shown_difference(theirs, ours)}, now "
                    f"{shown_difference(ours, theirs)}): resume it with the original one"
                )
        self._take_over_resolved(state)
        self.method.load_method_state_dict(state["method"])
        self.buffer.load_buffer_state_dict(state["buffer"])
        set_random_state(state["random"])

    def _take_over_resolved(self, state: Mapping[str, Any]) -> None:
        """Adopt the resolved values of a state, except those that were asked to change."""
        before = dict(state.get("resolved", {}))  # earlier releases saved none
        if "decoder" in before:
            before["decoder"] = current_decoder_name(before["decoder"])
        if "network" in before:
            before["network"] = current_name(before["network"]) or self.network
        self.resumed = before
        if before.get("network", self.network) != self.network:
            raise CheckpointError(
                f"the run trains the network {before['network']}, here it would be {self.network}: "
                "resume it with the benchmark, method and version of this package it started with"
            )
        weights = before.get(WEIGHTS_DIGEST)
        if weights is not None and self.weights_digest not in (None, weights):
            raise CheckpointError(
                f"the run started from weights with digest {weights}, here they would have "
                f"{self.weights_digest}: resume it with the original ones"
            )
        self.weights_digest = weights
        if "precision" in before and not self._precision_asked:
            self._use_precision(before["precision"])
        threads = int(state["threads"])
        if self.config.threads is None and before.get("processes", world_size()) == world_size():
            torch.set_num_threads(threads)

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


def _share_of_batch(batch_size: int) -> int:
    if batch_size % world_size():
        raise ConfigurationError(
            f"batch_size {batch_size} is not a multiple of the number of processes, {world_size()}"
        )
    return batch_size // world_size()
