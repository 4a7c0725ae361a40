"""A run's folder: its configuration, its numbers, its times, its checkpoints."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_data.files import remove_partial_files, sync_file, write_atomically
from iirc_data.locks import sole_user
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.shards.table import TABLE_NAME
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.runtime.distributed import rank, wait_for_all

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
TIMINGS_NAME = "timings.jsonl"
BUFFER_NAME = "buffer.zarr"
CHECKPOINTS_NAME = "checkpoints"
CONFUSION_NAME = "confusion"
RECORD_NAME = "record.json"

_DEPTH_OF_SWEEPS = 6  # method/schedule/seed, and a folder for each varied setting


class RunDirectory:
    """Where one run writes what it finds; of several processes the first one writes.

    ``metrics.jsonl`` of two equal runs is equal; what differs from run to run, such as times,
    goes to ``timings.jsonl``.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINTS_NAME / "last.pt"

    @classmethod
    def create(cls, path: Path, config: ExperimentConfig) -> "RunDirectory":
        """Begin a run's folder with its configuration; made if missing.

        Raises:
            ConfigurationError: The folder holds a run already.
        """
        if rank() == 0:
            cls.check_unused(path)
            path.mkdir(parents=True, exist_ok=True)
            config.save(path / CONFIG_NAME)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> tuple["RunDirectory", ExperimentConfig]:
        """Open the folder of a run that was begun.

        Returns:
            The folder, and the run's configuration.

        Raises:
            ConfigurationError: There is no run, or its configuration is not readable.
        """
        if not (path / CONFIG_NAME).exists():
            hint = _where_runs_are(path)
            raise ConfigurationError(f"{path} holds no run: it has no {CONFIG_NAME}{hint}")
        return cls(path), ExperimentConfig.load(path / CONFIG_NAME)

    def remember(self, config: ExperimentConfig) -> None:
        """Write a configuration with which the run goes on; of several processes the first one."""
        if rank() == 0:
            config.save(self.path / CONFIG_NAME)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this command alone; of several processes the first one does.

        Raises:
            InUseError: Another command trains here.
        """
        with sole_user(self.path) if rank() == 0 else nullcontext():
            wait_for_all()
            yield

    @classmethod
    @contextmanager
    def held_for_new_run(cls, path: Path) -> Iterator[None]:
        """Hold a folder in which a run is to begin; see :meth:`held`.

        Raises:
            ConfigurationError: It holds a run already, or cannot be made.
            InUseError: Another command trains here.
        """
        cls.check_unused(path)
        with cls(path).held():
            cls.check_unused(path)
            wait_for_all()
            yield

    @staticmethod
    def check_unused(path: Path) -> None:
        """Check that a folder can hold a new run.

        Raises:
            ConfigurationError: It holds a run, several runs or a dataset, lies inside a run, or
                cannot be made.
        """
        check_writable(path)
        if (path / CONFIG_NAME).exists() or (path / CHECKPOINTS_NAME).exists():
            raise ConfigurationError(
                f"{path} holds a run already: give another folder, or go on with --resume {path}"
            )
        for name in (MANIFEST_NAME, TABLE_NAME):
            if (path / name).exists():
                raise ConfigurationError(f"{path} holds a dataset: give a folder of its own")
        if (outer := next(filter(_is_run, path.absolute().parents), None)) is not None:
            raise ConfigurationError(f"{path} lies inside the run {outer}: give a folder elsewhere")
        if (inner := next(runs_below(path), None)) is not None:
            raise ConfigurationError(
                f"{path} holds other runs, such as {inner}: give a folder of its own"
            )

    def has_results(self) -> bool:
        """Tell whether metrics go beyond the first task, which has a checkpoint by then."""
        if not (self.path / METRICS_NAME).exists():
            return False
        return any(record.get("after_task", 0) > 0 for record in read_metrics(self.path))

    def task_checkpoint(self, task_id: int) -> Path:
        """Return where the checkpoint of a task's end is kept."""
        return self.path / CHECKPOINTS_NAME / f"task_{task_id:03d}.pt"

    def add_metrics(self, **record: Any) -> None:
        """Append a line to ``metrics.jsonl``."""
        self._append(METRICS_NAME, record)

    def add_timing(self, **record: Any) -> None:
        """Append a line to ``timings.jsonl``."""
        self._append(TIMINGS_NAME, record)

    def write_confusion(
        self,
        after_task: int,
        *,
        counts: NDArray[np.int64],
        n_samples: NDArray[np.int64],
        class_names: Sequence[str],
    ) -> None:
        """Write ``confusion/after_task_NNN.npz``; one of that name is replaced.

        Args:
            after_task: Latest task seen.
            counts: int64 (n, n): samples that have label i (row) and label j (column) predicted.
            n_samples: int64 (n,): samples that have label i.
            class_names: Names of the n classes.
        """
        if rank() == 0:
            with write_atomically(self._confusion(after_task)) as file:
                np.savez_compressed(
                    file, counts=counts, n_samples=n_samples, class_names=np.array(class_names)
                )

    def forget_confusions(self, first_task: int) -> None:
        """Remove what :meth:`write_confusion` wrote for a task and those that follow it."""
        folder = self.path / CONFUSION_NAME
        if rank() == 0 and folder.exists():
            remove_partial_files(folder)
            kept = {self._confusion(task) for task in range(first_task)}
            for path in set(folder.glob("after_task_*.npz")) - kept:
                path.unlink()

    def _confusion(self, after_task: int) -> Path:
        return self.path / CONFUSION_NAME / f"after_task_{after_task:03d}.npz"

    def sync(self) -> dict[str, int]:
        """Wait until all lines are on the disk.

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
        """Return the SHA-256 of the first so many bytes of ``metrics.jsonl``."""
        with (self.path / METRICS_NAME).open("rb") as file:
            return hashlib.sha256(file.read(size)).hexdigest()

    def rewind(self, sizes: dict[str, int], metrics_digest: str | None = None) -> None:
        """Remove the lines that were written after :meth:`sync` told the sizes of the files.

        Args:
            sizes: Size in bytes of each file; a file without one is emptied.
            metrics_digest: What :meth:`metrics_digest` told then.

        Raises:
            ConfigurationError: A file is shorter, or the metrics are not what they were.
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
                    "different runs, or the file was cut"
                )
            if name == METRICS_NAME and size and self.metrics_digest(size) != metrics_digest:
                raise ConfigurationError(
                    f"{path} was altered since the checkpoint: bring the file back as it was"
                )
            with path.open("ab") as file:
                file.truncate(min(size, found))

    def _append(self, name: str, record: dict[str, Any]) -> None:
        if rank() == 0:
            with (self.path / name).open("a") as file:
                file.write(json.dumps(record) + "\n")


def check_writable(path: Path) -> None:
    """Check that a folder can be made, or written to where it exists.

    Raises:
        ConfigurationError: It cannot.
    """
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigurationError(f"cannot make the folder {path}: cannot write to {parent}")


def runs_below(path: Path) -> Iterator[Path]:
    """Yield the folders of runs in a folder, as deep as a sweep of one preset puts them."""
    for depth in range(1, _DEPTH_OF_SWEEPS + 1):
        for config in sorted(path.glob("*/" * depth + CONFIG_NAME)):
            if _is_run(config.parent):
                yield config.parent


def _is_run(path: Path) -> bool:
    begun = (RECORD_NAME, METRICS_NAME, CHECKPOINTS_NAME)
    return (path / CONFIG_NAME).exists() and any((path / name).exists() for name in begun)


def _where_runs_are(path: Path) -> str:
    """Say which folder may have been meant instead of one that holds no run."""
    if (outer := next(filter(_is_run, path.absolute().parents), None)) is not None:
        return f"; the run is {outer}"
    if (inner := next(runs_below(path), None)) is not None:
        return f"; it holds other runs, give one of them, such as {inner}"
    return ""


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
