"""``--preset auto``: the preset of a method for a family of benchmarks."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.places import benchmark_file
from iirc_train.config.preset_files import preset_names
from iirc_train.config.settings import Role

AUTO_PRESET = "auto"
"""The name of a preset for which benchmark and method choose one."""

FAMILIES = {
    "cil_cifar100_*": "cil_cifar100",
    "cil_imagenet100_*": "cil_imagenet100",
    "cil_imagenet1k_*": "cil_imagenet1k",
    "split_cifar10": "split_cifar10",
    "split_cifar100": "split_cifar100",
    "split_tinyimagenet": "split_tinyimagenet",
    "iirc_cifar100": "cifar100",
    "iirc_imagenet_lite": "imagenet_lite",
    "iirc_imagenet_full": "imagenet_full",
}
"""Pattern of benchmark names to the prefix of their presets, ``PREFIX-METHOD``."""

BARE = ExperimentConfig.with_role(Role.PLACE, Role.MACHINE) | {
    "method",
    "schedule",
    "seed",
    "joint",
    "incremental_joint",
}
"""Settings that a command may have and still be bare: they do not say how to train."""

_USUAL_MEMORIES = "20"  # per class: of the presets that differ only in memories, the one for auto


def auto_preset(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the preset of the method and benchmark that settings name.

    Joint training has presets of its own, whatever the method.

    Args:
        sources: Settings by name; later ones win.

    Raises:
        ConfigurationError: Benchmark or method is missing, or there is no such preset; the message
            lists those that exist.
    """
    named = _named(sources)
    if missing := [name for name in ("benchmark", "method") if name not in named]:
        raise ConfigurationError(
            f"--preset auto chooses by benchmark and method: give {' and '.join(missing)}"
        )
    benchmark, kind = str(named["benchmark"]), _kind(named)
    family = _family(benchmark)
    if family is None:
        raise ConfigurationError(
            f"--preset auto has no settings for benchmark {benchmark!r}, only for "
            f"{', '.join(FAMILIES)}: give a preset by name ('iirc presets'), or the settings"
        )
    found = _presets(family)
    if (preset := _preset(found, kind)) is not None:
        return preset
    if several := [name for key, name in found.items() if key.startswith(f"{kind}-")]:
        raise ConfigurationError(
            f"there are several presets of {kind!r} for {benchmark}: give --preset "
            f"{' or '.join(several)}"
        )
    raise ConfigurationError(
        f"there is no preset of {kind!r} for {benchmark}, only of {', '.join(found)}: give the "
        "settings, or the preset of another method by name"
    )


def implied_preset(overrides: Mapping[str, Any]) -> str | None:
    """Return the preset of a command that says what to train, but not how.

    This is :data:`AUTO_PRESET` if the benchmark has one preset for the method.

    Args:
        overrides: The settings that the command gives, without a preset or file.
    """
    is_bare = _named([overrides]).keys() <= BARE
    return AUTO_PRESET if is_bare and _published_preset(overrides) else None


def missed_preset(overrides: Mapping[str, Any]) -> str | None:
    """Return the preset that a command without a learning rate may have meant.

    Args:
        overrides: The settings that the command gives, without a preset or file.
    """
    return None if "lr" in overrides else _published_preset(overrides)


def _published_preset(overrides: Mapping[str, Any]) -> str | None:
    named = _named([overrides])
    family = _family(str(named.get("benchmark", "")))
    if family is None or "method" not in named:
        return None
    return _preset(_presets(family), _kind(named))


def _named(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = ExperimentConfig.published_names
    return {names.get(name, name): v for source in sources for name, v in source.items()}


def _kind(named: Mapping[str, Any]) -> str:
    joint = [name for name in ("joint", "incremental_joint") if named.get(name) is True]
    return joint[0] if joint else str(named["method"])


def _family(benchmark: str) -> str | None:
    """Return the prefix of a benchmark's presets; a file counts by its name."""
    file = benchmark_file(benchmark)
    name = benchmark if file is None else file.stem
    return next((prefix for pattern, prefix in FAMILIES.items() if fnmatch(name, pattern)), None)


def _presets(family: str) -> dict[str, str]:
    """Return the presets of a family by what follows its prefix."""
    start = f"{family}-"
    return {name.removeprefix(start): name for name in preset_names() if name.startswith(start)}


def _preset(found: Mapping[str, str], kind: str) -> str | None:
    return found.get(kind, found.get(f"{kind}-{_USUAL_MEMORIES}"))
