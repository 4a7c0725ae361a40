"""A step in a process of its own, with a time limit."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """How a process ended.

    Attributes:
        end: ``"exit 0"``, ``"exit N"``, the name of a signal, or ``"killed after N s"``.
        seconds: How long it ran.
        last_line: Last line that it printed.
    """

    end: str
    seconds: float
    last_line: str

    @property
    def is_well(self) -> bool:
        """Whether it ended by itself, with status 0."""
        return self.end == "exit 0"


def run_process(command: list[str], log: Path, seconds: float) -> Outcome:
    """Run a command with its output in a file; kill it, and all that it started, after a time.

    Args:
        command: The command.
        log: File for output and errors.
        seconds: Time limit.
    """
    started = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            end = _said(process.wait(seconds))
        except subprocess.TimeoutExpired:
            end = f"killed after {seconds:.0f} s"
        finally:
            _kill_group(process.pid)  # what a step leaves behind would disturb the next one
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it
                process.wait(10)
    return Outcome(end, time.monotonic() - started, _last_line(log))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _said(status: int) -> str:
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:200]
