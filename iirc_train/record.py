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

from iirc_data.errors import ConfigurationError
from iirc_data.files import write_json
from iirc_train.distributed import rank, world_size
from iirc_train.experiment import Experiment

RECORD_NAME = "record.json"
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
    data = describe_data(experiment)
    record = read_record(run) if (run / RECORD_NAME).exists() else {**data, "sessions": []}
    session = {"started": _now(), "position": dict(position), **_describe_session(experiment)}
    record["sessions"].append(session)
    tell_of_versions(record, console)
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


def describe_data(experiment: Experiment) -> dict[str, Any]:
    """Return digests of what a run sees: of the dataset, and of each task's view by split."""
    manifest = experiment.store.manifest
    return {
        "dataset": {"name": manifest.dataset, "digest": manifest.digest},
        "task_views": {
            split: [sequence.view(task).digest() for task in range(len(sequence))]
            for split, sequence in experiment.splits.items()
        },
    }


def check_same_data(recorded: Mapping[str, Any], experiment: Experiment) -> None:
    """Check that an experiment sees what a recorded run saw.

    Raises:
        ConfigurationError: It sees something else.
    """
    found = describe_data(experiment)
    if recorded["dataset"] != found["dataset"]:
        raise ConfigurationError(
            f"the run was made with dataset {recorded['dataset']}, here is {found['dataset']}"
        )
    for split, views in found["task_views"].items():
        if recorded["task_views"].get(split) != views:
            raise ConfigurationError(
                f"the run saw other {split} samples or labels: its benchmark file, or the version "
                "of this package, is another"
            )


def tell_of_versions(record: Mapping[str, Any], console: Console) -> None:
    """Print a line where a run began with other versions than there are now."""
    before, now = record["sessions"][0]["versions"], _versions()
    changed = [
        f"{name} {before.get(name, 'missing')} → {now.get(name, 'missing')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        line = f"note: other versions than when the run began: {', '.join(changed)}"
        console.print(line, highlight=False, markup=False)


def _command() -> str:
    program = Path(sys.argv[0])
    is_module = program.name == "__main__.py"
    words = ["python", "-m", program.parent.name] if is_module else [program.name]
    return shlex.join([*words, *sys.argv[1:]])


def _describe_session(experiment: Experiment) -> dict[str, Any]:
    return {
        "command": _command(),
        "processes": world_size(),
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
    folder = Path(__file__).parents[1]
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
