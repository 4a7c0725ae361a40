"""A configuration is composed: a preset, then a YAML file, then single settings; later wins."""

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.network import ALTERNATIVES
from iirc_train.config.plain_yaml import read_settings
from iirc_train.config.settings import nearest_name

PRESETS = Path(str(resources.files("iirc_train"))) / "config" / "presets"


def compose(
    preset: str | None = None,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ExperimentConfig:
    """Compose a configuration.

    Args:
        preset: Name of a preset.
        file: YAML file; its settings win over the preset's.
        overrides: Settings that win over both.

    Raises:
        ConfigurationError: There is no such preset, the file is not readable, a setting's name or
            value is wrong (the message names the preset or file that it is from), or a required
            setting is given nowhere.
    """
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in _layers(preset, file, overrides or {}):
        named = ExperimentConfig.checked_names(values, source)
        if not named.keys().isdisjoint(ALTERNATIVES):
            settings = {name: v for name, v in settings.items() if name not in ALTERNATIVES}
        settings |= named
        sources |= dict.fromkeys(named, source)
    return ExperimentConfig.parse(settings, sources)


def preset_names() -> list[str]:
    """Return the names of all presets, sorted; each is one curve of the paper."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_file(name: str) -> Path:
    """Return the YAML file of a preset.

    Raises:
        ConfigurationError: There is no such preset; the message tells the nearest name.
    """
    names = preset_names()
    if name not in names:
        raise ConfigurationError(
            f"there is no preset {name!r}, 'iirc presets' lists them{nearest_name(name, names)}"
        )
    return PRESETS / f"{name}.yaml"


def _layers(
    preset: str | None, file: Path | None, overrides: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if preset is not None:
        yield f"preset {preset}", read_settings(preset_file(preset))
    if file is not None:
        yield str(file), read_settings(file)
    yield "", overrides
