"""GPUs, examined in a process of its own, because a broken driver may hang or crash it."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from iirc_train.doctor.finding import Finding, said

_PLACES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg"))
_SECONDS = 60.0
CHECK_DRIVER = "check the driver with nvidia-smi; until then, train with --device cpu"
_CRASHED = (
    "after 'GPU …, torch', DALI is at fault: train with --decoder pillow; otherwise the driver: "
    "train with --device cpu"
)


def gpus() -> Iterator[Finding]:
    """Yield each GPU, the driver, and whether torch computes and DALI decodes on it."""
    if not may_have_gpu():
        yield Finding("devices", "GPU", "none: training runs on the CPU")
        return
    yield from driver()
    yield from (finding for finding in examined() if finding.section == "devices")


def may_have_gpu() -> bool:
    """Return whether this machine shows signs of a GPU of NVIDIA, without asking its driver."""
    return any(path.exists() for path in _PLACES) or shutil.which("nvidia-smi") is not None


def driver() -> Iterator[Finding]:
    """Yield the version of the driver, from ``nvidia-smi``."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS / 4)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("devices", "driver", f"nvidia-smi: {said(error)}", "warning", CHECK_DRIVER)
        return
    lines = result.stdout.split("\n")
    if result.returncode:
        text = " ".join((result.stdout + result.stderr).split())[:300]
        yield Finding("devices", "driver", f"nvidia-smi: {text}", "warning", CHECK_DRIVER)
    else:
        yield Finding("devices", "driver", lines[0].strip())


@cache
def examined() -> tuple[Finding, ...]:
    """Return what a process of its own finds out; its crash or hang is a finding too."""
    return tuple(findings_of_process([sys.executable, "-m", "iirc_train.doctor.on_gpus"], _SECONDS))


def findings_of_process(command: list[str], seconds: float) -> Iterator[Finding]:
    """Yield the findings that a process prints, and how it ended unless it ended well.

    Args:
        command: The process to start.
        seconds: Time limit.
    """
    end = None
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        end = f"no answer in {seconds:g} seconds"
    if end is None and process.returncode < 0:
        end = f"ended by signal {_signal_name(-process.returncode)}"
    elif end is None and process.returncode > 0:
        end = f"ended with status {process.returncode}: {' '.join(errors.split())[-200:]}"
    last = "before anything else"
    for line in output.splitlines():
        try:
            finding = Finding(*json.loads(line))
        except (ValueError, TypeError):  # cut off, or printed by a library
            continue
        last = f"after {finding.name!r}"
        yield finding
    if end is not None:
        yield Finding("devices", "GPU", f"the examination {end}, {last}", "broken", _CRASHED)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
