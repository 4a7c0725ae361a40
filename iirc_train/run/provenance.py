"""What a run is made with: command, settings as resolved, versions, source and machine."""

import datetime
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iirc_train.run.machine import describe_machine, installed_versions
from iirc_train.run.resolved import changes_said
from iirc_train.runtime.distributed import world_size
from iirc_train.runtime.program import typed_program


@dataclass(frozen=True)
class Surroundings:
    """What a session of a run computes with.

    Attributes:
        device: The device.
        resolved: What the settings came to on this machine: name to plain value.
        before: What they came to when the checkpoint was written that the session starts from;
            empty without a checkpoint.
    """

    device: torch.device
    resolved: Mapping[str, Any]
    before: Mapping[str, Any]

    @property
    def changes(self) -> str:
        """How ``resolved`` differs from ``before``, as text; empty where it does not."""
        return changes_said(self.before, self.resolved)

    def described(self) -> dict[str, Any]:
        """Return what the record of a session holds, plain values only."""
        return {
            "command": _command(),
            "processes": world_size(),
            "resolved": dict(self.resolved),
            "versions": installed_versions(),
            "source": _source(),
            "machine": describe_machine(self.device),
        }


def version_changes(before: Mapping[str, str]) -> str:
    """Return how the installed versions differ from earlier ones; empty where they do not.

    Args:
        before: Package to version, as a session of a record holds them.
    """
    now = installed_versions()
    return ", ".join(
        f"{name} {before.get(name, 'missing')} → {now.get(name, 'missing')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _command() -> str:
    words = shlex.join([*typed_program(), *sys.argv[1:]])
    return words.encode(errors="backslashreplace").decode()  # names need not be UTF-8


def _source() -> dict[str, Any] | None:
    """Return the commit of the git checkout that contains this package; None outside of one."""
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
