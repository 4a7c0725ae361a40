"""Processors and memory that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from iirc_train.doctor.finding import Finding, in_gib
from iirc_train.run.machine import memory_bytes, processor_name, system_name

CGROUP = Path("/sys/fs/cgroup")


def processors() -> Iterator[Finding]:
    """Yield system, processor, and how many processors this process may use."""
    yield Finding("devices", "system", system_name())
    yield Finding("devices", "processor", processor_name() or "unknown")
    all_of_them = os.cpu_count() or 1
    usable = usable_processors()
    yield Finding("devices", "processors", f"{usable} of {all_of_them} may be used")
    quota = processor_quota(CGROUP)
    if quota is None:
        return
    value = f"{quota:g} processors"
    if quota >= usable:
        yield Finding("devices", "quota of the container", value)
        return
    few = max(1, math.floor(quota))
    yield Finding(
        "devices",
        "quota of the container",
        f"{value}, fewer than the {usable} that threads are started for",
        "warning",
        f"bind the command to as many processors: taskset -c 0-{few - 1} iirc train …",
    )


def memory() -> Iterator[Finding]:
    """Yield the size of the memory, and the container's limit where there is one."""
    size = memory_bytes()
    limit = memory_limit(CGROUP)
    if size is not None:
        yield Finding("devices", "memory", in_gib(size))
    if limit is not None and (size is None or limit < size):
        yield Finding("devices", "memory limit of the container", in_gib(limit))


def usable_processors() -> int:
    """Return the number of processors that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_quota(cgroup: Path) -> float | None:
    """Return how many processors' time a container may use; None for no limit.

    Args:
        cgroup: The container's control group, of version 1 or 2.
    """
    words = _text(cgroup / "cpu.max").split()
    if len(words) != 2:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [_text(cgroup / "cpu" / name) for name in names]
    if not all(word.isdecimal() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def memory_limit(cgroup: Path) -> int | None:
    """Return how many bytes of memory a container may use; None for no limit.

    Args:
        cgroup: The container's control group, of version 1 or 2.
    """
    text = _text(cgroup / "memory.max") or _text(cgroup / "memory" / "memory.limit_in_bytes")
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
