"""The components of a run: data, method and buffer, and their state."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.datasets import open_datasets
from iirc_data.definitions import TRAIN, current_decoder_name
from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_data.loader import make_decoder
from iirc_data.loader.features import AS_THEY_ARE, FeatureDecoder
from iirc_data.loader.make import needs_windows
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.image_preset import benchmark_as_shown
from iirc_train.config.network import current_name, image_size, resolve_network
from iirc_train.config.weights import NONE
from iirc_train.methods import get_method
from iirc_train.methods.settings import settings_for
from iirc_train.models.networks import check_network, expected_images, make_network
from iirc_train.models.on_features import HeadOnFeatures
from iirc_train.models.weights import remembered_digest
from iirc_train.run.provenance import Surroundings
from iirc_train.run.record import SeenData
from iirc_train.run.resolved import WEIGHTS_DIGEST, resolved_graph, resolved_precision
from iirc_train.runtime.distributed import choose_device, is_first_process, world_size
from iirc_train.runtime.random_state import random_state, seed_random_generators, set_random_state
from iirc_train.training.data_checks import (
    check_image_sizes,
    check_stages,
    check_views,
    note_other_images,
)
from iirc_train.training.features import (
    Progress,
    all_sample_ids,
    cached_features,
    uses_cached_features,
)
from iirc_train.training.identity import (
    defining_settings,
    saved_settings,
    shown_difference,
    shown_transforms,
    task_sequences,
    transforms_as_written,
)
from iirc_train.training.steps import TrainingSteps


class Experiment(TrainingSteps):
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
        self.batch_size = _share_of_batch(config.batch_size)
        self.device = choose_device(config.device)
        expected = expected_images(config.network, config.weights)
        self.benchmark = benchmark_as_shown(config.benchmark, config.image_preset, expected)
        if expected is not None and is_first_process():
            note_other_images(self.benchmark, config.network, expected)
        parts = get_method(config.method)
        self.config = config = settings_for(config, self.benchmark.setup)
        self.features: str | None = None
        self.store = open_datasets(self.benchmark, config.data, cache_size=config.cache_size)
        presets = self.benchmark.image_presets.values()
        self.presets = dict(zip(self.store.datasets, presets, strict=True))
        self.transforms = {
            name: shown_transforms(preset.transforms, augment=config.augment)
            for name, preset in self.presets.items()
        }
        self.decoder = make_decoder(
            config.decoder, self.device, hw_decoder_load=config.hw_decoder_load
        )
        self.splits = task_sequences(config, self.benchmark, self.store)
        check_views(config, self.benchmark, self.store, self.splits)
        check_image_sizes(self.transforms, self.store, self.splits)
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
        self.samples = self.store
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
        check_stages(config, self.method, self.n_tasks)
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
        if before and ("features" in before) != (self.features is not None):
            kinds = ("cached features", "images")
            theirs, ours = kinds if "features" in before else reversed(kinds)
            raise CheckpointError(
                f"the run learns from {theirs}, here it would be from {ours}: keep its settings "
                "augment, cache_features and image_preset"
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


def _share_of_batch(batch_size: int) -> int:
    if batch_size % world_size():
        raise ConfigurationError(
            f"batch_size {batch_size} is not a multiple of the number of processes, {world_size()}"
        )
    return batch_size // world_size()
