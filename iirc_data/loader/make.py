"""Making loaders and engines by name."""

import logging
from typing import Literal, TypeAlias

import torch

from iirc_data.augment import Transform, TransformPreset
from iirc_data.errors import LoaderError
from iirc_data.loader.batch import ReplaySource
from iirc_data.loader.decoder import Engine
from iirc_data.loader.epoch_samples import Samples
from iirc_data.loader.loader import Loader
from iirc_data.loader.normalization import Normalization
from iirc_data.loader.pillow import TorchEngine
from iirc_data.loader.resident import MAX_BYTES, decoded_bytes, why_not_resident
from iirc_data.shards.store import ShardStore
from iirc_data.task_view import TaskView

EngineName: TypeAlias = Literal["auto", "dali", "torch"]

logger = logging.getLogger(__name__)


def make_engine(
    name: EngineName = "auto", device: torch.device | str = "cpu", threads: int | None = None
) -> Engine:
    """Make an engine, which may serve any number of loaders, also at the same time.

    Args:
        name: ``"dali"``, ``"torch"``, or ``"auto"``: DALI where it is installed. The engine's
            ``name`` says which one it is.
        device: Where images are wanted.
        threads: Number of decoding threads; by default one per processor, divided among the
            processes of this machine.

    Raises:
        LoaderError: DALI was asked for and is not installed, DALI is installed and cannot be
            imported, or the name is unknown.
    """
    device = torch.device(device)
    if name not in ("auto", "dali", "torch"):
        raise LoaderError(f"unknown loader engine {name!r}: choose auto, dali or torch")
    engine = None if name == "torch" else _dali_engine(device, threads)
    if engine is None:
        if name == "dali":
            raise LoaderError(
                "DALI is not installed: pip install nvidia-dali-cuda130, or choose engine torch"
            )
        engine = TorchEngine(threads)
    logger.info("engine %s decodes images for %s (asked for: %s)", engine.name, device, name)
    return engine


def _dali_engine(device: torch.device, threads: int | None) -> Engine | None:
    """Return a DALI engine, or None where DALI is not installed."""
    try:
        from iirc_data.loader.dali import DaliEngine
    except Exception as error:  # a broken installation raises many types
        if isinstance(error, ModuleNotFoundError) and error.name in ("nvidia", "nvidia.dali"):
            return None
        raise LoaderError(
            f"DALI is installed but cannot be imported ({type(error).__name__}: {error}): "
            "reinstall nvidia-dali-cuda130, or choose engine torch"
        ) from error
    return DaliEngine(device, threads)


def make_loader(
    view: TaskView,
    store: ShardStore,
    replay: ReplaySource | None = None,
    *,
    transforms: TransformPreset,
    train: bool,
    batch_size: int = 128,
    shuffle: bool | None = None,
    endless: bool = False,
    normalize: bool = True,
    replay_multiplier: float = 1.0,
    resident: bool | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    engine: Engine | EngineName = "auto",
) -> Loader:
    """Make a loader: whatever reads images, reads them through one.

    An epoch shows every sample of the view and every memory of ``replay`` once, in one exact
    permutation of both together.

    Small images may be resident: the first epoch decodes all of them, once, and keeps them as uint8
    on the device, where every epoch augments many batches at a time. Batches are the same bit for
    bit as those that are decoded anew.

    A loader can be copied, pickled and used in a forked process: each copy decodes for itself.

    Args:
        view: Samples and labels to show; its order is kept where nothing is shuffled.
        store: The shards that hold the samples.
        replay: Memories to mix in.
        transforms: How images are shown, for example ``TRANSFORM_PRESETS["cifar"]``.
        train: Augment as for training; otherwise as for evaluation.
        batch_size: Samples per batch and rank.
        shuffle: Draw a new order each epoch; by default where ``train``.
        endless: Show pass after pass without end, each a new permutation; an epoch is a stretch of
            that stream, at least one pass long, in which every batch is full. Where one batch holds
            everything, an epoch is one pass. ``replay_multiplier`` must be 1.
        normalize: Give float32 normalised by the preset's mean and std; otherwise uint8.
        replay_multiplier: How often an epoch shows each memory; what a fraction adds is drawn anew
            each epoch. See :func:`~iirc_data.order.memories_of_epoch`.
        resident: Keep decoded images on the device, in every process all of them. By default where
            they have one size, the transform only crops and mirrors, and they take no more than
            1 GiB.
        seed: Seed of order and augmentation.
        rank: This process's number in distributed training.
        world_size: Number of processes in distributed training.
        device: Where batches are wanted.
        engine: ``"auto"``, ``"dali"``, ``"torch"``, or an engine made by :func:`make_engine`.

    Returns:
        An iterable of :class:`~iirc_data.loader.batch.Batch`, with ``len`` and ``set_epoch``.

    Raises:
        LoaderError: The engine is unknown or not installed, or images cannot be resident.
        ValueError: A number is out of range.
    """
    if endless and replay_multiplier != 1:
        raise ValueError(f"endless shows each memory once a pass, not {replay_multiplier} times")
    device = torch.device(device)
    samples = Samples(view, store, replay)
    transform = transforms.train if train else transforms.evaluate
    return Loader(
        samples,
        replay_multiplier=replay_multiplier,
        transform=transform,
        normalization=Normalization(transforms.mean, transforms.std) if normalize else None,
        batch_size=batch_size,
        shuffle=train if shuffle is None else shuffle,
        endless=endless,
        seed=seed,
        rank=rank,
        world_size=world_size,
        device=device,
        engine=make_engine(engine, device) if isinstance(engine, str) else engine,
        is_resident=_is_resident(resident, samples, transform),
    )


def _is_resident(asked: bool | None, samples: Samples, transform: Transform) -> bool:
    if asked is False:
        return False
    reason = why_not_resident(samples, transform)
    if asked and reason is not None:
        raise LoaderError(f"images cannot be resident: {reason}; use resident=False")
    return reason is None and (asked or decoded_bytes(samples) <= MAX_BYTES)
