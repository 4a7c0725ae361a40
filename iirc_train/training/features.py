"""Frozen features of a run: whether they are constant, and computing those that are not cached."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from iirc_data.augment import ImagePreset
from iirc_data.definitions import NO_LABEL, SplitName
from iirc_data.errors import ConfigurationError, TrainingError
from iirc_data.features.array import FeatureArray
from iirc_data.features.filling import fill
from iirc_data.features.key import FeatureKey, shown_by
from iirc_data.features.store import FeatureStore
from iirc_data.loader import Decoder, make_loader
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.cache_size import size_in_bytes
from iirc_data.shards.remote import cache_base
from iirc_data.shards.sample_store import SampleStore
from iirc_data.shards.store import ShardStore
from iirc_data.task_sequence import TaskSequence
from iirc_data.task_view import TaskView
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import Networks
from iirc_train.models.definition import definition_digest
from iirc_train.models.trunk import head_of
from iirc_train.models.weights import remembered_digest, trunk_digest
from iirc_train.runtime.distributed import is_first_process
from iirc_train.runtime.random_state import random_state, set_random_state

logger = logging.getLogger("iirc_train")

Progress = Callable[[str, int, int, int], None]
"""Called with a dataset's name, and the numbers of features: computed, left to compute, in all."""

BATCH_SIZES = {"cpu": 16, "cuda": 512}
"""Images per batch; a GPU without room for them computes parts of a batch."""

_SECONDS_BETWEEN_NOTES = 60.0


def why_not_constant(
    config: ExperimentConfig, method: type[BaseMethod], presets: Mapping[str, ImagePreset]
) -> str | None:
    """Return why a run shows a network's trunk different images, or changes it; None if not."""
    if not config.frozen:
        return "the trunk of the network is trained: set frozen (--frozen)"
    if method.compares_feature_maps:
        return f"{config.method} compares feature maps, which are not cached"
    if method.adds_prompts:
        return f"{config.method} adds prompts, which change them"
    if method.trains_trunk:
        return f"{config.method} {method.trains_trunk}"
    if config.augment and any(preset.train != preset.evaluate for preset in presets.values()):
        return "training images are augmented: turn that off (augment: false, --no-augment)"
    return None


def uses_cached_features(
    config: ExperimentConfig, method: type[BaseMethod], presets: Mapping[str, ImagePreset]
) -> bool:
    """Return whether a run reads cached features instead of images.

    Raises:
        ConfigurationError: The setting ``cache_features`` asks for it, and features change.
    """
    if config.cache_features is False:
        return False
    reason = why_not_constant(config, method, presets)
    if reason is None:
        return True
    if config.cache_features:
        raise ConfigurationError(f"cache_features: features are not constant, because {reason}")
    if config.frozen and is_first_process():
        logger.info("note: features are not cached, because %s", reason)
    return False


def cached_features(
    config: ExperimentConfig,
    network: str,
    net: nn.Module,
    store: SampleStore,
    presets: Mapping[str, ImagePreset],
    sample_ids: NDArray[np.int64],
    *,
    decoder: Decoder,
    device: torch.device,
    progress: Progress | None = None,
) -> FeatureStore:
    """Return the features of samples, after computing those that are not in the cache.

    Processes that need the same features share the work. The global random generators are left as
    they are, so that the numbers of a run do not depend on what it finds in the cache.

    Args:
        config: The run's configuration.
        network: Name of the network.
        net: The network; put on the device and in evaluation mode.
        store: The images.
        presets: Image preset of each dataset, in the order of ``store.datasets``.
        sample_ids: int64 (N,), rows of the sample table, ascending.
        decoder: Decodes the images.
        device: Device of the network.
        progress: Shows the progress; by default, it is logged now and then.

    Raises:
        ShardError: Images cannot be read, or the cache cannot be written.
        TrainingError: The network returns NaN.
    """
    cache = CacheFolder(cache_base(), size_in_bytes(config.cache_size))
    weights = remembered_digest(net) or trunk_digest(net)
    size = cast(nn.Linear, head_of(net)).in_features
    definition = definition_digest(network)
    random, arrays = random_state(), []
    numbers = store.dataset_numbers(sample_ids)
    first = 0
    for number, (dataset, preset) in enumerate(
        zip(store.datasets.values(), presets.values(), strict=True)
    ):
        manifest = dataset.manifest
        key = FeatureKey(
            network=network,
            weights=weights,
            image_preset=shown_by(preset),
            dataset=manifest.dataset,
            dataset_digest=manifest.digest,
            definition=definition,
        )
        array = FeatureArray(cache, key, (len(dataset), size))
        extraction = partial(
            extracted, net, dataset, preset, decoder=decoder, device=device, network=network
        )
        note = progress or _LoggedProgress()
        fill(
            array,
            sample_ids[numbers == number] - first,
            extraction,
            partial(note, manifest.dataset),
        )
        arrays.append(array)
        first += len(dataset)
    set_random_state(random)
    return FeatureStore(store, arrays)


def extracted(
    net: nn.Module,
    dataset: ShardStore,
    preset: ImagePreset,
    rows: NDArray[np.int64],
    *,
    decoder: Decoder,
    device: torch.device,
    network: str,
) -> Iterator[NDArray[np.float32]]:
    """Yield the latents of images as evaluation shows them, in batches, in full precision.

    Args:
        net: The network.
        dataset: The images.
        preset: Their image preset.
        rows: int64 (N,), rows of the sample table; at least one.
        decoder: Decodes the images.
        device: Device of the network.
        network: Name of the network, for errors.

    Raises:
        TrainingError: The network returns NaN.
    """
    view = TaskView((), (), 0, 0, (), rows, np.full((len(rows), 2), NO_LABEL, np.int32))
    loader = make_loader(
        view,
        dataset,
        transforms=preset,
        train=False,
        batch_size=BATCH_SIZES[device.type],
        resident=False,
        device=device,
        decoder=decoder,
    )
    networks = Networks()
    networks.net = net.to(device).to(memory_format=torch.channels_last)
    networks.eval()
    batches = iter(loader)
    first = next(batches)
    n_done, before = 0, None
    with networks.inference(first.images[:2]):
        for batch in chain([first], batches, [None]):
            latents = None if batch is None else networks.forward_net(batch.images)[1].float()
            if before is not None:  # copied while the next batch is computed
                features = before.cpu().numpy()
                if len(bad := np.flatnonzero(~np.isfinite(features).all(axis=1))):
                    raise TrainingError(
                        f"network {network} returns NaN or infinite features for "
                        f"{dataset.name(int(rows[n_done + bad[0]]))}: its weights are damaged, or "
                        "the image preset is not theirs"
                    )
                n_done += len(features)
                yield features
            before = latents


def all_sample_ids(splits: Mapping[SplitName, TaskSequence]) -> NDArray[np.int64]:
    """Return the samples of all tasks of all splits, int64 (N,), ascending."""
    views = [tasks.view(range(len(tasks))).sample_ids for tasks in splits.values()]
    return np.unique(np.concatenate(views))


def in_the_cache(dataset: str, n: int, n_total: int) -> str:
    """Return a line that says how many features of a dataset need not be computed."""
    return f"{dataset}: {n:,} of {n_total:,} features are in the cache"


class _LoggedProgress:
    """Logs the progress when it starts, and now and then."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next = 0.0

    def __call__(self, dataset: str, n_computed: int, n_left: int, n_total: int) -> None:
        now = time.monotonic()
        if not is_first_process() or (now < self._next and n_left):
            return
        self._next = now + _SECONDS_BETWEEN_NOTES
        if not n_computed:
            logger.info("computing %s features of %s", f"{n_left:,}", dataset)
            if n_left < n_total:
                logger.info("%s", in_the_cache(dataset, n_total - n_left, n_total))
        else:
            speed = n_computed / max(now - self._started, 1e-9)
            logger.info(
                "%s features of %s computed, %s left, %.3g images/s",
                f"{n_computed:,}",
                dataset,
                f"{n_left:,}",
                speed,
            )
