"""A run's folder: its configuration, metrics, timings and checkpoints."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from iirc_data.errors import ConfigurationError
from iirc_data.files import sync_file
from iirc_data.locks import sole_user
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.shards.table import TABLE_NAME
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.run.confusion import Confusion, forget_confusions, write_confusion
from iirc_train.runtime.distributed import rank, wait_for_all

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
TIMINGS_NAME = "timings.jsonl"
BUFFER_NAME = "buffer.zarr"
CHECKPOINTS_NAME = "checkpoints"
RECORD_NAME = "record.json"

_DEPTH_OF_SWEEPS = 6  # method/schedule/seed, and a folder for each varied setting


class RunDirectory:
    """The folder that one run writes to; only the first of several processes writes.

    Two equal runs write equal ``metrics.jsonl``; values that differ between them, such as times,
    go to ``timings.jsonl``.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINTS_NAME / "last.pt"

    @classmethod
    def create(cls, path: Path, config: ExperimentConfig) -> "RunDirectory":
        """Create a run's folder, if it is missing, and write its configuration.

        Raises:
            ConfigurationError: The folder already contains a run.
        """
        if rank() == 0:
            cls.check_unused(path)
            path.mkdir(parents=True, exist_ok=True)
            config.save(path / CONFIG_NAME)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> tuple["RunDirectory", ExperimentConfig]:
        """Open the folder of an existing run.

        Returns:
            The folder, and the run's configuration.

        Raises:
            ConfigurationError: The folder contains no run, or its configuration is not readable.
        """
        if not (path / CONFIG_NAME).exists():
            why = f"it has no {CONFIG_NAME}" if path.exists() else "there is no such folder"
            raise ConfigurationError(f"{path} holds no run: {why}{_where_runs_are(path)}")
        return cls(path), ExperimentConfig.load(path / CONFIG_NAME)

    def remember(self, config: ExperimentConfig) -> None:
        """Replace the configuration with the one that the run resumes with."""
        if rank() == 0:
            config.save(self.path / CONFIG_NAME)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder for this command; only the first of several processes does.

        Raises:
            InUseError: Another command is training in the folder.
        """
        with sole_user(self.path) if rank() == 0 else nullcontext():
            wait_for_all()
            yield

    @classmethod
    @contextmanager
    def held_for_new_run(cls, path: Path) -> Iterator[None]:
        """Lock a folder for a new run; see :meth:`held`.

        Raises:
            ConfigurationError: The folder already contains a run, or cannot be created.
            InUseError: Another command is training in the folder.
        """
        cls.check_unused(path)
        with cls(path).held():
            cls.check_unused(path)
            wait_for_all()
            yield

    @staticmethod
    def check_unused(path: Path) -> None:
        """Check that a folder can be used for a new run.

        Raises:
            ConfigurationError: The folder contains a run, several runs or a dataset, lies inside
                a run, or cannot be created.
        """
        check_writable(path)
        if (path / CONFIG_NAME).exists() or (path / CHECKPOINTS_NAME).exists():
            raise ConfigurationError(
                f"{path} holds a run already: give another folder, or resume it with iirc train "
                f"--resume {path}; in Python, with resume='auto'"
            )
        for name in (MANIFEST_NAME, TABLE_NAME):
            if (path / name).exists():
                raise ConfigurationError(f"{path} holds a dataset: give the run its own folder")
        if (outer := next(filter(_is_run, path.absolute().parents), None)) is not None:
            raise ConfigurationError(f"{path} lies inside the run {outer}: give a folder elsewhere")
        if (inner := next(runs_below(path), None)) is not None:
            raise ConfigurationError(
                f"{path} holds other runs, such as {inner}: give the run its own folder"
            )

    def has_results(self) -> bool:
        """Return whether the metrics extend past the first task, so a checkpoint must exist."""
        if not (self.path / METRICS_NAME).exists():
            return False
        return any(record.get("after_task", 0) > 0 for record in read_metrics(self.path))

    def task_checkpoint(self, task_id: int) -> Path:
        """Return the path of the checkpoint that is kept from the end of a task."""
        return self.path / CHECKPOINTS_NAME / f"task_{task_id:03d}.pt"

    def add_metrics(self, **record: Any) -> None:
        """Append a line to ``metrics.jsonl``."""
        self._append(METRICS_NAME, record)

    def add_timing(self, **record: Any) -> None:
        """Append a line to ``timings.jsonl``."""
        self._append(TIMINGS_NAME, record)

    def write_confusion(self, after_task: int, confusion: Confusion) -> None:
        """Write ``confusion/after_task_NNN.npz``, replacing an earlier one.

        Args:
            after_task: Latest task seen.
            confusion: The counts.
        """
        if rank() == 0:
            write_confusion(self.path, after_task, confusion)

    def forget_confusions(self, first_task: int) -> None:
        """Remove the counts after a task and after those that follow it."""
        if rank() == 0:
            forget_confusions(self.path, first_task)

    def sync(self) -> dict[str, int]:
        """Wait until all lines are on disk.

        Returns:
            The size in bytes of each file of lines.
        """
        sizes = {}
        for name in (METRICS_NAME, TIMINGS_NAME):
            with (self.path / name).open("ab") as file:
                sync_file(file.fileno())
                sizes[name] = file.tell()
        return sizes

    def metrics_digest(self, size: int) -> str:
        """Return the SHA-256 of the first ``size`` bytes of ``metrics.jsonl``."""
        with (self.path / METRICS_NAME).open("rb") as file:
            return hashlib.sha256(file.read(size)).hexdigest()

    def rewind(self, sizes: dict[str, int], metrics_digest: str | None = None) -> None:
        """Truncate the files to the sizes that :meth:`sync` returned.

        Args:
            sizes: Size in bytes of each file; a file without a size is emptied.
            metrics_digest: What :meth:`metrics_digest` returned then.

        Raises:
            ConfigurationError: ``metrics.jsonl`` is shorter than its size, or has changed.
        """
        if rank() > 0:
            return
        for name in (METRICS_NAME, TIMINGS_NAME):
            size = sizes.get(name, 0)
            path = self.path / name
            found = path.stat().st_size if path.exists() else 0
            if name == METRICS_NAME and found < size:
                raise ConfigurationError(
                    f"{path} has {found} bytes, the checkpoint counts {size}: they belong to "
                    "different runs, or the file was truncated"
                )
            if name == METRICS_NAME and size and self.metrics_digest(size) != metrics_digest:
                raise ConfigurationError(
                    f"{path} has changed since the checkpoint: restore the original file"
                )
            with path.open("ab") as file:
                file.truncate(min(size, found))

    def _append(self, name: str, record: dict[str, Any]) -> None:
        if rank() == 0:
            with (self.path / name).open("a") as file:
                file.write(json.dumps(record) + "\n")


def check_writable(path: Path) -> None:
    """Check that a folder can be created, or, if it exists, be written to.

    Raises:
        ConfigurationError: It cannot.
    """
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigurationError(f"cannot create the folder {path}: cannot write to {parent}")


def runs_below(path: Path) -> Iterator[Path]:
    """Yield the run folders inside a folder, up to the depth of a sweep's run folders."""
    for depth in range(1, _DEPTH_OF_SWEEPS + 1):
        for config in sorted(path.glob("*/" * depth + CONFIG_NAME)):
            if _is_run(config.parent) and not in_hidden_folder(config, path):
                yield config.parent


def in_hidden_folder(path: Path, base: Path) -> bool:
    """Return whether a file is hidden below ``base``, or in a hidden folder, as drafts are."""
    return any(part.startswith(".") for part in path.relative_to(base).parts)


def _is_run(path: Path) -> bool:
    of_a_run = (RECORD_NAME, METRICS_NAME, CHECKPOINTS_NAME)
    return (path / CONFIG_NAME).exists() and any((path / name).exists() for name in of_a_run)


def _where_runs_are(path: Path) -> str:
    """Return a hint at the run folder that was probably meant; empty if there is none."""
    if (outer := next(filter(_is_run, path.absolute().parents), None)) is not None:
        return f"; the run is {outer}"
    if (inner := next(runs_below(path), None)) is not None:
        return f"; it holds other runs: give one of them, such as {inner}"
    return ""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` of a run's folder.

    Raises:
        ConfigurationError: The file is missing or not readable.
    """
    try:
        with (path / METRICS_NAME).open() as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a readable run: {error}") from error
