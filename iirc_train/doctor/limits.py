"""Limits of the operating system: open files, shared memory, free space, locks."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from iirc_train.doctor.finding import Finding, in_gib

FEW_FILES = 1024
SMALL_SHARED_MEMORY = 2**30
LITTLE_SPACE = 2**30
SHARED_MEMORY = Path("/dev/shm")


def open_files() -> Iterator[Finding]:
    """Yield how many files this process may open, and how many of them shards may take."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows
        return
    from iirc_data.shards.store import MAX_OPEN_SHARDS

    soft, hard = ("unlimited" if n == RLIM_INFINITY else n for n in getrlimit(RLIMIT_NOFILE))
    value = f"{soft} (the system allows {hard}); shards take up to {MAX_OPEN_SHARDS}"
    if isinstance(soft, int) and soft < FEW_FILES:
        remedy = f"datasets of many shards are read more slowly: ulimit -n {_raised(hard)}"
        yield Finding("limits", "open files", value, "warning", remedy)
    else:
        yield Finding("limits", "open files", value)


def shared_memory() -> Iterator[Finding]:
    """Yield the size of ``/dev/shm``, where the system has it."""
    if not SHARED_MEMORY.is_dir():
        return
    size = shutil.disk_usage(SHARED_MEMORY).total
    if size >= SMALL_SHARED_MEMORY:
        yield Finding("limits", str(SHARED_MEMORY), in_gib(size))
        return
    yield Finding(
        "limits",
        str(SHARED_MEMORY),
        f"{size / 2**20:,.0f} MiB, too small for several GPUs (NCCL) or a DataLoader's workers",
        "warning",
        "start the container with --shm-size 8g",
    )


def folders() -> Iterator[Finding]:
    """Yield free space of the temporary folder and the cache, and the cache's kind of lock."""
    from iirc_data.locks import has_flock
    from iirc_data.shards.remote import CACHE_VARIABLE, cache_base

    temporary = Path(tempfile.gettempdir())
    yield _space("temporary folder", temporary, "set TMPDIR to a folder with more space")
    remedy = f"set {CACHE_VARIABLE} to a folder on a local disk"
    cache = cache_base()
    yield _space("cache", cache, remedy)
    existing = nearest_folder(cache)
    if not os.access(existing, os.W_OK):
        value = f"{existing} is not writable: datasets cannot be read by their address"
        yield Finding("limits", "locks in the cache", value, "warning", remedy)
    elif has_flock(existing):
        yield Finding("limits", "locks in the cache", "flock")
    else:
        value = "lock files, for the file system has no flock: a lock can outlive its process"
        yield Finding("limits", "locks in the cache", value, "warning", remedy)


def nearest_folder(path: Path) -> Path:
    """Return a folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path(path.anchor))


def _space(name: str, path: Path, remedy: str) -> Finding:
    free = shutil.disk_usage(nearest_folder(path)).free
    value = f"{path}, {in_gib(free)} free"
    if free < LITTLE_SPACE:
        return Finding("limits", name, value, "warning", remedy)
    return Finding("limits", name, value)


def _raised(hard: int | str) -> int:
    return min(4 * FEW_FILES, hard) if isinstance(hard, int) else 4 * FEW_FILES
