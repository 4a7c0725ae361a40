"""A run's folder: its configuration, its numbers, its times."""

import json
from pathlib import Path
from typing import Any

from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
TIMINGS_NAME = "timings.jsonl"
BUFFER_NAME = "buffer.zarr"


class RunDirectory:
    """Where one run writes what it finds.

    ``metrics.jsonl`` of two equal runs is equal; what differs from run to run, such as times,
    goes to ``timings.jsonl``.

    Args:
        path: The folder; made if missing.
        config: The run's configuration, saved as ``config.yaml``.

    Raises:
        ConfigurationError: The folder holds a run already.
    """

    def __init__(self, path: Path, config: ExperimentConfig) -> None:
        self.check_unused(path)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        config.save(path / CONFIG_NAME)
        (path / METRICS_NAME).touch()

    @staticmethod
    def check_unused(path: Path) -> None:
        """Check that a folder holds no run.

        Raises:
            ConfigurationError: It does.
        """
        if (path / CONFIG_NAME).exists():
            raise ConfigurationError(f"{path} holds a run already: give another folder")

    def add_metrics(self, **record: Any) -> None:
        """Append a line to ``metrics.jsonl``."""
        self._append(METRICS_NAME, record)

    def add_timing(self, **record: Any) -> None:
        """Append a line to ``timings.jsonl``."""
        self._append(TIMINGS_NAME, record)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` of a run's folder.

    Raises:
        ConfigurationError: There is no readable one.
    """
    try:
        with (path / METRICS_NAME).open() as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a readable run: {error}") from error
