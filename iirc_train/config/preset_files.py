"""The presets: published configurations, one YAML file each."""

from importlib import resources
from pathlib import Path

from iirc_data.errors import ConfigurationError
from iirc_train.config.settings import nearest_name

PRESETS = Path(str(resources.files("iirc_train"))) / "config" / "presets"
"""Holds the curves of the IIRC paper; its subfolders hold the presets of other papers."""


def preset_names() -> list[str]:
    """Return the sorted names of all presets."""
    return sorted(_files())


def preset_file(name: str) -> Path:
    """Return the YAML file of a preset.

    Raises:
        ConfigurationError: The preset does not exist; the message names the nearest one.
    """
    files = _files()
    if name not in files:
        raise ConfigurationError(
            f"there is no preset {name!r}, 'iirc presets' lists them{nearest_name(name, files)}"
        )
    return files[name]


def _files() -> dict[str, Path]:
    return {path.stem: path for path in PRESETS.rglob("*.yaml")}
