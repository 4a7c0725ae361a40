"""Factories of loaders and decoders."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias, get_args

import numpy as np
import torch

from iirc_data.augment import ImagePreset, PerDataset, Transform, TransformPreset
from iirc_data.definitions import ORDER_BLOCKS, DecoderName, OrderName, current_decoder_name
from iirc_data.errors import LoaderError
from iirc_data.image_sizes import training_difference
from iirc_data.loader.batch import ReplaySource
from iirc_data.loader.decoder import Decoder, with_number
from iirc_data.loader.epoch_samples import EpochSamples
from iirc_data.loader.loader import Loader
from iirc_data.loader.normalization import Normalization
from iirc_data.loader.pillow import PillowDecoder
from iirc_data.loader.resident import MAX_BYTES, decoded_bytes, why_not_resident
from iirc_data.loader.step_loader import StepLoader, StepPlan
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_view import TaskView

logger = logging.getLogger(__name__)

Transforms: TypeAlias = TransformPreset | ImagePreset
"""The transforms of a dataset."""


def make_decoder(
    name: DecoderName = "auto",
    device: torch.device | str = "cpu",
    threads: int | None = None,
    *,
    hw_decoder_load: float = 0.0,
) -> Decoder:
    """Make a decoder; any number of loaders may share it, also at the same time.

    Args:
        name: ``"dali"``, ``"pillow"``, or ``"auto"``, which is DALI if it is installed and Pillow
            otherwise. The decoder's ``name`` is the one chosen.
        device: Device of the images; ``cuda`` is torch's current GPU at the time of this call.
        threads: Number of decoding threads; by default the number of processors divided by the
            number of processes on this machine.
        hw_decoder_load: Fraction, from 0 to 1, of a batch's JPEGs that DALI hands to the JPEG
            engine of the GPU, if it has one. The default of 0 leaves the engine alone: it is
            reported to write into images that earlier work in the stream still reads.

    Raises:
        LoaderError: The name is unknown, DALI was requested and is not installed, or DALI is
            installed but cannot be imported.
        ValueError: ``hw_decoder_load`` is out of range.
    """
    if not 0 <= hw_decoder_load <= 1:
        raise ValueError(f"expected hw_decoder_load from 0 to 1, got {hw_decoder_load}")
    device = with_number(torch.device(device))
    name = current_decoder_name(name)
    if name not in get_args(DecoderName):
        raise LoaderError(f"unknown decoder {name!r}: choose auto, dali or pillow")
    decoder = None if name == "pillow" else _dali_decoder(device, threads, hw_decoder_load)
    if decoder is None:
        if name == "dali":
            raise LoaderError(
                "DALI is not installed: pip install nvidia-dali-cuda130, or use the decoder pillow"
            )
        decoder = PillowDecoder(threads)
    logger.info("decoder %s decodes images for %s (asked for: %s)", decoder.name, device, name)
    return decoder


def _dali_decoder(
    device: torch.device, threads: int | None, hw_decoder_load: float
) -> Decoder | None:
    """Return a DALI decoder, or None if DALI is not installed."""
    try:
        from iirc_data.loader.dali import DaliDecoder
    except Exception as error:  # a broken installation raises many types
        if isinstance(error, ModuleNotFoundError) and error.name in ("nvidia", "nvidia.dali"):
            return None
        raise LoaderError(
            f"DALI is installed but cannot be imported ({type(error).__name__}: {error}): "
            "reinstall nvidia-dali-cuda130, or use the decoder pillow"
        ) from error
    return DaliDecoder(device, threads, hw_decoder_load)


def make_loader(
    view: TaskView,
    store: SampleStore,
    replay: ReplaySource | None = None,
    *,
    transforms: Transforms | Mapping[str, Transforms],
    train: bool,
    batch_size: int = 128,
    shuffle: bool | None = None,
    endless: bool = False,
    order: OrderName = "exact",
    order_blocks: int = ORDER_BLOCKS,
    normalize: bool = True,
    replay_multiplier: float = 1.0,
    resident: bool | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    decoder: Decoder | DecoderName = "auto",
    engine: Decoder | DecoderName | None = None,
    hw_decoder_load: float = 0.0,
    plan: StepPlan | None = None,
) -> Loader:
    """Make a loader. All code that reads images for training or evaluation uses one.

    An epoch yields every sample of the view and every memory of ``replay`` once, in one permutation
    of both together.

    Small images may be resident: the first epoch decodes all images and keeps them as uint8 on the
    device, where each epoch augments many batches at a time. The batches are bit for bit those of a
    loader that decodes the images in every epoch.

    A loader can be copied, pickled and used in a forked process: each copy decodes for itself.

    Args:
        view: Samples and their labels; without shuffling, batches keep its order.
        store: The shards that hold the samples.
        replay: Memories to mix in.
        transforms: Augmentation and normalisation, for example ``benchmark.image_preset``; or those
            of each dataset by its name, for example ``benchmark.image_presets``.
        train: Use the training augmentation; otherwise that of evaluation.
        batch_size: Samples per batch and rank.
        shuffle: Draw a new order in each epoch; by default equal to ``train``.
        endless: Yield an endless stream of passes, each a new permutation, cut into epochs of at
            least one pass in which every batch is full. If one batch holds all samples, an epoch is
            one pass. Requires a ``replay_multiplier`` of 1.
        order: How epochs are shuffled. ``"exact"`` draws one permutation of all samples;
            ``"bounded"`` works through ``order_blocks`` blocks of the shards at a time, so that
            remote shards can be read with a small cache; see
            :func:`~iirc_data.order.bounded_order`. Does not apply to ``endless`` streams.
        order_blocks: Largest number of blocks, of 4 MiB each, that the bounded order has begun and
            not finished.
        normalize: Return float32 normalised by the preset's mean and std; otherwise uint8.
        replay_multiplier: How often an epoch yields each memory. For the fractional part, a subset
            is drawn in each epoch. See :func:`~iirc_data.order.memories_of_epoch`.
        resident: Keep all decoded images on the device, in every process. By default done if the
            images have one size, the transform does not resize, and they take at most 1 GiB.
        seed: Seed of order and augmentation.
        rank: Rank of this process in distributed training.
        world_size: Number of processes in distributed training.
        device: Device of the batches; ``cuda`` is torch's current GPU at the time of this call.
        decoder: ``"auto"``, ``"dali"``, ``"pillow"``, or a decoder made by :func:`make_decoder`.
        engine: Former name of ``decoder``.
        hw_decoder_load: See :func:`make_decoder`; without effect if a decoder is given.
        plan: Draws memories for each step. The view is the plan's, and there is no ``replay``.

    Returns:
        An iterable of :class:`~iirc_data.loader.batch.Batch`, with ``len`` and ``set_epoch``.

    Raises:
        LoaderError: The decoder is unknown or not installed, ``resident=True`` is impossible, or
            a dataset has no transforms.
        ValueError: A number is out of range.
    """
    if endless and replay_multiplier != 1:
        raise ValueError(f"endless yields each memory once a pass, not {replay_multiplier} times")
    device = with_number(torch.device(device))
    if order not in get_args(OrderName) or order_blocks < 1:
        raise ValueError(
            f"expected order 'exact' or 'bounded' and order_blocks >= 1, got {order!r}, "
            f"{order_blocks}"
        )
    decoder = decoder if engine is None else engine
    if isinstance(decoder, str):
        decoder = make_decoder(decoder, device, hw_decoder_load=hw_decoder_load)
    samples = EpochSamples(view, store, replay)
    of_datasets = _of_datasets(transforms, store)
    if train:
        _warn_of_training_difference(of_datasets, samples)
    transform = PerDataset(dict(enumerate(t.train if train else t.evaluate for t in of_datasets)))
    normalizations = tuple(Normalization(t.mean, t.std) for t in of_datasets) if normalize else ()
    make = Loader if plan is None else partial(StepLoader, plan=plan)
    return make(
        samples,
        replay_multiplier=replay_multiplier,
        transform=transform,
        normalizations=normalizations,
        batch_size=batch_size,
        shuffle=train if shuffle is None else shuffle,
        endless=endless,
        order_blocks=order_blocks if order == "bounded" else None,
        seed=seed,
        rank=rank,
        world_size=world_size,
        device=device,
        decoder=decoder,
        is_resident=_is_resident(resident, samples, transform),
    )


def _of_datasets(
    transforms: Transforms | Mapping[str, Transforms], store: SampleStore
) -> list[TransformPreset]:
    """Return the transforms of each dataset, in the order of their numbers."""
    names = list(store.datasets)
    if not isinstance(transforms, Mapping):
        given = [transforms] * len(names)
    elif len(names) == len(transforms) == 1:  # a benchmark may call its only dataset otherwise
        given = list(transforms.values())
    elif missing := [name for name in names if name not in transforms]:
        raise LoaderError(
            f"there are no transforms for dataset {missing[0]!r}, only for {', '.join(transforms)}"
        )
    else:
        given = [transforms[name] for name in names]
    return [t.transforms if isinstance(t, ImagePreset) else t for t in given]


def _warn_of_training_difference(
    transforms: Sequence[TransformPreset], samples: EpochSamples
) -> None:
    numbers = np.arange(len(samples))
    datasets = samples.datasets(numbers)
    for dataset in samples.present:
        own = numbers if datasets is None else np.flatnonzero(datasets == dataset)
        sizes_of_own = samples.sizes if datasets is None else samples.sizes[own]
        if (found := training_difference(transforms[dataset], sizes_of_own)) is not None:
            number, sizes = found
            warnings.warn(
                f"image {own[number]} {sizes}: choose an image preset for images of this size",
                stacklevel=3,
            )


def needs_windows(transform: Transform) -> bool:
    """Return whether a transform shows only a window of each image."""
    one = np.ones(1, np.int32)
    return transform.parameters(one, one, np.zeros((1, transform.n_random))).window is not None


def _is_resident(asked: bool | None, samples: EpochSamples, transform: PerDataset) -> bool:
    if asked is False:
        return False
    reason = why_not_resident(samples, transform)
    if asked and reason is not None:
        raise LoaderError(f"images cannot be resident: {reason}; use resident=False")
    return reason is None and (asked or decoded_bytes(samples) <= MAX_BYTES)
