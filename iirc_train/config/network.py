"""Resolves the network that a configuration asks for."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from iirc_data.augment import TRANSFORM_PRESETS, TransformPreset
from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.errors import BenchmarkError, ConfigurationError
from iirc_data.image_sizes import shown_sizes

AUTO = "auto"
"""The value of ``network`` for which the image size chooses the network."""

ALTERNATIVES = frozenset({"network", "n_layers"})
"""The settings that choose the network; a later one replaces the other."""

MAX_LAYERS = 2000  # the deepest published ResNet has 1202 layers

LARGEST_SMALL_IMAGE = 64
"""Height or width in pixels up to which ``auto`` means ``resnet20``, and above it ``resnet18``."""

IMAGENET_DEPTHS = (18, 34, 50, 101, 152)
"""Depths of the ResNets for images of ImageNet's size."""

RESNET_NAME = re.compile(r"resnet(?P<depth>[1-9]\d*)(?P<kind>|_a|_b|_cifar)")
"""Names of ResNets. Which of them exist depends on :mod:`iirc_train.models.networks`."""

_FORMER_NAME = re.compile(r"(?P<kind>\w+)-(?P<depth>\d+)")


def resolve_network(network: str, n_layers: int | None, image_size: int) -> str:
    """Return the name of the network that the settings ask for.

    Args:
        network: A name, or :data:`AUTO`.
        n_layers: Depth of the ResNet if ``network`` is :data:`AUTO`; None for the default.
        image_size: Height and width in pixels at which images are shown.

    Returns:
        ``network``, unless it is :data:`AUTO`. The name is not checked against the registry.
    """
    if network != AUTO:
        return network
    is_small = image_size <= LARGEST_SMALL_IMAGE
    if n_layers is None:
        return "resnet20" if is_small else "resnet18"
    return _small_resnet(n_layers) if is_small else f"resnet{n_layers}"


def network_of(network: str, n_layers: int | None, dataset: str) -> str:
    """Return the name of the network that the settings ask for, given a benchmark or image preset.

    This is the one place where a published configuration chooses its network. Such a
    configuration has ``dataset`` and ``n_layers``, and the published code searches ``dataset``
    for ``cifar`` and ``imagenet``. Here the whole name is looked up, and the image size of that
    benchmark decides, with the same result for each of the six published names.

    Args:
        network: A name, or :data:`AUTO`.
        n_layers: See :func:`resolve_network`.
        dataset: See :func:`image_size_of`; not looked up unless ``network`` is :data:`AUTO`.

    Raises:
        ConfigurationError: ``network`` is :data:`AUTO`, and there is no such dataset.
    """
    if network != AUTO:
        return network
    try:
        return resolve_network(network, n_layers, image_size_of(dataset))
    except BenchmarkError as error:
        raise ConfigurationError(
            f"cannot choose a network for dataset {dataset!r}, which is neither a benchmark nor an "
            f"image preset: set 'network', for example to resnet32 ({error})"
        ) from error


def image_size_of(dataset: str) -> int:
    """Return the height and width in pixels at which a dataset's images are shown.

    Args:
        dataset: Name or JSON file of a benchmark, or name of an image preset.

    Raises:
        BenchmarkError: There is no such benchmark.
    """
    if dataset in TRANSFORM_PRESETS:
        return _shown_size(TRANSFORM_PRESETS[dataset])
    return image_size(load_benchmark(dataset))


def image_size(benchmark: Benchmark) -> int:
    """Return the height and width in pixels at which a benchmark's images are shown."""
    presets = list(benchmark.image_presets.values())
    sized = [preset for preset in presets if preset.size is not None] or presets
    return _shown_size(sized[0].transforms)


def _shown_size(transforms: TransformPreset) -> int:
    any_size = np.array([[LARGEST_SMALL_IMAGE, LARGEST_SMALL_IMAGE]], np.int32)
    return int(shown_sizes(transforms.train, any_size).max())


def with_named_network(settings: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Return settings in which ``network`` is a name and ``n_layers`` is left out.

    Two runs with the same network then have the same settings, however each was configured.

    Args:
        settings: All settings of a run.
        image_size: Height and width in pixels at which its images are shown.
    """
    name = resolve_network(settings["network"], settings["n_layers"], image_size)
    return {
        key: name if key == "network" else value
        for key, value in settings.items()
        if key != "n_layers"
    }


def check_depth(network: str, n_layers: int | None) -> None:
    """Check that ``n_layers`` and ``network`` agree where both are set.

    Raises:
        ValueError: They contradict each other.
    """
    if n_layers is None or network == AUTO:
        return
    found = RESNET_NAME.fullmatch(network)
    if found is None or int(found["depth"]) != n_layers:
        raise ValueError(f"n_layers {n_layers} contradicts network {network!r}: set only one")


def current_name(recorded: str) -> str | None:
    """Return the name of a network that a run recorded, perhaps with an earlier release.

    Earlier releases recorded class and depth, such as ``ResNetCIFAR-20``.

    Returns:
        The name; None for a class that has none.
    """
    found = _FORMER_NAME.fullmatch(recorded)
    if found is None:
        return recorded
    depth = int(found["depth"])
    names = {"ResNetCIFAR": _small_resnet(depth), "ResNet": f"resnet{depth}"}
    return names.get(found["kind"])


def _small_resnet(depth: int) -> str:
    """Return the name of the CIFAR ResNet in option B of a depth."""
    return f"resnet{depth}_b" if depth in IMAGENET_DEPTHS else f"resnet{depth}"
