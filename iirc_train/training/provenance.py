"""What a run was made with: data, versions, machine, and when; everything needed to repeat it."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from iirc_data.definitions import SplitName
from iirc_data.errors import ConfigurationError
from iirc_data.files import write_json
from iirc_data.shards import ShardStore
from iirc_data.shards.manifest import Manifest
from iirc_data.task_view import TaskSequence
from iirc_train.run.directory import RECORD_NAME
from iirc_train.run.resolved import changes_said
from iirc_train.runtime.distributed import rank, world_size
from iirc_train.runtime.lines import print_line
from iirc_train.runtime.program import typed_program
from iirc_train.training.components import Experiment

_PACKAGES = ("iirc-pipeline", "torch", "torchvision", "numpy", "pillow", "zarr")
_DALI = "nvidia-dali-cuda130"


@contextmanager
def recorded(
    run: Path, experiment: Experiment, console: Console, position: Mapping[str, int]
) -> Iterator[None]:
    """Write down that a run begins or goes on, and when it is finished.

    Args:
        run: The run's folder; its ``record.json`` is written, by the first process.
        experiment: What is trained.
        console: Where a line says what differs from how the run began.
        position: Where the run stands as it begins or goes on.
    """
    if rank() > 0:
        yield
        return
    data = describe_data(experiment.store, experiment.splits)
    record: dict[str, Any]
    record = read_record(run) if (run / RECORD_NAME).exists() else {**data, "sessions": []}
    session = {"started": _now(), "position": dict(position), **_describe_session(experiment)}
    record["sessions"].append(session)
    tell_of_versions(record, console)
    if changed := changes_said(experiment.resumed, experiment.resolved):
        print_line(console, f"note: the run goes on with {changed}")
    write_json(run / RECORD_NAME, record)
    yield
    session["finished"] = _now()
    write_json(run / RECORD_NAME, record)


def read_record(run: Path) -> dict[str, Any]:
    """Read ``record.json`` of a run's folder.

    Raises:
        ConfigurationError: There is no readable one.
    """
    path = run / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["sessions"][0]["versions"], dict):
            raise ValueError("its versions are missing")
        if not isinstance(record["task_views"], dict) or "dataset" not in record:
            raise ValueError("its data is missing")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not readable: {error}") from error
    return dict(record)


def is_finished(run: Path) -> bool:
    """Tell whether a folder holds a run that was trained to its end."""
    if not (run / RECORD_NAME).exists():
        return False
    return any("finished" in session for session in read_record(run)["sessions"])


def describe_data(
    store: ShardStore, splits: Mapping[SplitName, TaskSequence]
) -> dict[str, dict[str, Any]]:
    """Return digests of what a run sees: of the dataset, and of each task's view by split."""
    return {
        "dataset": describe_dataset(store.manifest),
        "task_views": {
            split: [sequence.view(task).digest() for task in range(len(sequence))]
            for split, sequence in splits.items()
        },
    }


def describe_dataset(manifest: Manifest) -> dict[str, str]:
    """Return a dataset's name and digest."""
    return {"name": manifest.dataset, "digest": manifest.digest}


def check_same_data(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Check that a run would see what a recorded run saw.

    Args:
        recorded: The run's record.
        found: What :func:`describe_data` tells of the data.

    Raises:
        ConfigurationError: It sees something else.
    """
    check_same_dataset(recorded, found["dataset"])
    for split, views in found["task_views"].items():
        if recorded["task_views"].get(split) != views:
            raise ConfigurationError(
                f"the run saw other {split} samples or labels: its benchmark file, or the version "
                "of this package, is another"
            )


def check_same_dataset(recorded: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """Check that a dataset is the one that a recorded run was made with.

    Args:
        recorded: The run's record.
        found: Name and digest of the dataset.

    Raises:
        ConfigurationError: It is another one.
    """
    if recorded["dataset"] != found:
        raise ConfigurationError(
            "the run was made with dataset {name}, digest {digest}; ".format_map(
                {"name": "?", "digest": "?"} | dict(recorded["dataset"])
            )
            + "here is dataset {name}, digest {digest}".format_map(found)
        )


def recorded_precision(record: Mapping[str, Any]) -> str | None:
    """Return the arithmetic that a run began in; None where an earlier release recorded it."""
    resolved = record["sessions"][0].get("resolved", {})
    return resolved.get("precision") if isinstance(resolved, dict) else None


def tell_of_versions(record: Mapping[str, Any], console: Console) -> None:
    """Print a line where a run began with other versions than there are now."""
    before, now = record["sessions"][0]["versions"], _versions()
    changed = [
        f"{name} {before.get(name, 'missing')} → {now.get(name, 'missing')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        print_line(console, f"note: other versions than when the run began: {', '.join(changed)}")


def _command() -> str:
    words = shlex.join([*typed_program(), *sys.argv[1:]])
    return words.encode(errors="backslashreplace").decode()  # names need not be UTF-8


def _describe_session(experiment: Experiment) -> dict[str, Any]:
    return {
        "command": _command(),
        "processes": world_size(),
        "resolved": experiment.resolved,
        "versions": _versions(),
        "source": _source(),
        "machine": describe_machine(experiment.device),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a machine is, but not its name: system, processor, cores, memory, GPU."""
    memory = None
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in (*_PACKAGES, _DALI):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _source() -> dict[str, Any] | None:
    """Return the commit of the checkout that this package is in, if it is in one."""
    folder = Path(__file__).parents[2]
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--untracked-files=no")
        return {"commit": ask("rev-parse", "HEAD"), "has_changes": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
