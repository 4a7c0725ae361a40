"""Runs a command in a child process and injects a fault at a chosen moment.

The child is forked from a server that has done the imports, and runs the real entry point.
"""

import errno
import os
import random
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.processes import CONTEXT

WRITING_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
FAILURES = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}
SECONDS = 300  # a command that takes longer hangs

EVICTION = "eviction"  # removal of a block
PARTS = {
    "checkpoints": "checkpoint",
    "buffer.zarr": "buffer",
    "metrics.jsonl": "metrics",
    "timings.jsonl": "timings",
    "config.yaml": "configuration",
    "record.json": "record",
    "confusion": "confusion",
    "tensorboard": "tensorboard",
    "manifest.json": "manifest",
    "manifest.unfinished.json": "manifest",
    "index.npz": "sample table",
    ".receipts": "receipt",
    ".tar.blocks/": "block",
    ".tar": "shard",
    ".lock": "lock",
}


@dataclass(frozen=True)
class Fate:
    """The fault that a command meets.

    Attributes:
        kind: A signal, ``"KILL"`` or ``"TERM"``; an error of a system call, ``"EIO"``,
            ``"ENOSPC"`` or ``"EROFS"``; a limit on the size of files, ``"FSIZE"``; or none, ``""``.
        at_write: Index of the write to the folder at which it occurs; None for ``after`` only.
        part: Count only writes of this part of the folder; all if empty.
        after: Seconds after that write (0 for right before it), or after the start.
        size: Limit of ``"FSIZE"``, in bytes.
    """

    kind: str = ""
    at_write: int | None = None
    after: float = 0.0
    size: int = 0
    part: str = ""


NOTHING = Fate()


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        status: Exit status; negative for a signal.
        told: Its standard output and standard error.
        moment: The part of the folder being written when the fault occurred; else
            ``"between writes"``.
        writes: For each write to the folder, the part that was written.
    """

    status: int
    told: str
    moment: str
    writes: list[str]

    @property
    def is_explained(self) -> bool:
        """Whether it failed with an error of one line."""
        return self.status == 1 and any(
            line.startswith("error: ") or " failed, see" in line  # the second form is a sweep's
            for line in self.told.splitlines()
        )

    @property
    def was_finished(self) -> bool:
        """Whether an earlier call had finished, so that there was nothing to do."""
        return self.status == 1 and "already holds a finished dataset" in self.told


def part_of(path: str) -> str:
    """Return the part of a folder that a file belongs to."""
    for name, part in PARTS.items():
        if name in path:
            return part
    return "folder"


def run(entry: str, arguments: list[str], folder: Path, notes: Path, fate: Fate = NOTHING) -> End:
    """Run a command until it ends.

    Args:
        entry: ``"iirc"``, or the module of a tool.
        arguments: Its arguments.
        folder: The folder whose writes are counted.
        notes: Folder for the output and the counts of the child process.
        fate: The fault to inject.
    """
    for path in notes.glob("*"):
        path.unlink()
    process = CONTEXT.Process(target=_child, args=(entry, arguments, folder, notes, fate))
    process.start()
    if fate.kind in SIGNALS and fate.at_write is None:
        process.join(fate.after)
        if process.is_alive():
            _signal_group(process.pid, fate.kind)
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"{entry} {' '.join(arguments)} did not end in {SECONDS} s")
    half_written = sorted(folder.rglob(f"*{process.pid}*.partial")) if folder.exists() else []
    moment = (notes / "moment").read_text() if (notes / "moment").exists() else "between writes"
    if half_written and moment != EVICTION:
        moment = part_of(str(half_written[0].relative_to(folder)))
    writes = (notes / "writes").read_text().splitlines() if (notes / "writes").exists() else []
    told = (notes / "told").read_text(errors="replace") if (notes / "told").exists() else ""
    assert process.exitcode is not None
    return End(process.exitcode, told, moment, writes)


def _child(entry: str, arguments: list[str], folder: Path, notes: Path, fate: Fate) -> None:
    os.setsid()  # processes that it starts are in its group, and get the same signal
    told = os.open(notes / "told", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    _arm(str(folder), notes, fate)
    sys.argv = [entry, *arguments]
    if entry == "iirc":
        from iirc_train.cli import main

        main()
    else:
        import importlib

        import typer

        typer.run(importlib.import_module(entry).main)


def _arm(folder: str, notes: Path, fate: Fate) -> None:
    if fate.kind == "FSIZE":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fate.size, limits[1]))
    counter = os.open(notes / "writes", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    moment = os.open(notes / "moment", os.O_CREAT | os.O_WRONLY)
    os.write(moment, b"between writes")
    lock = threading.Lock()
    n_writes = 0

    def watch(event: str, values: tuple[object, ...]) -> None:
        nonlocal n_writes
        path = _written_path(event, values)
        if path is None or not path.startswith(folder):
            return
        part = part_of(path[len(folder) :])
        if part == "block" and event == "os.remove" and not Path(path).name.startswith("."):
            part = EVICTION
        with lock:
            number = n_writes if fate.part in ("", part) else None
            n_writes += number is not None
            if fate.kind != "FSIZE":  # its limit would apply to this file, too
                os.write(counter, f"{part}\n".encode())
        if number is None or number != fate.at_write:
            return
        os.ftruncate(moment, 0)
        os.pwrite(moment, part.encode(), 0)
        if fate.kind in FAILURES:
            raise OSError(FAILURES[fate.kind], os.strerror(FAILURES[fate.kind]), path)
        if fate.kind in SIGNALS and fate.after:
            threading.Thread(target=_strike, args=(fate,), daemon=True).start()
        elif fate.kind in SIGNALS:
            os.killpg(0, SIGNALS[fate.kind])

    sys.addaudithook(watch)


def _strike(fate: Fate) -> None:
    time.sleep(fate.after)
    os.killpg(0, SIGNALS[fate.kind])


def _signal_group(leader: int, kind: str) -> None:
    try:
        os.killpg(leader, SIGNALS[kind])
    except ProcessLookupError:  # it has not created its group yet
        os.kill(leader, SIGNALS[kind])


def _written_path(event: str, values: tuple[object, ...]) -> str | None:
    """Return the file or folder that an audit event is about to change, if any."""
    if event == "open":
        path, mode, flags = values
        writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")  # type: ignore[operator, call-overload]
    else:
        path, writes = values[0] if values else None, event in WRITING_EVENTS
    return os.fsdecode(path) if writes and isinstance(path, str | bytes | os.PathLike) else None


def random_write(chance: random.Random, writes: list[str]) -> int:
    """Return the index of a write; every part of the folder is equally likely."""
    part = chance.choice(sorted(set(writes)))
    return chance.choice([number for number, written in enumerate(writes) if written == part])


def random_kill(chance: random.Random, writes: list[str], seconds: float) -> Fate:
    """Return a kill: three in four at a write or shortly after, the others at any time."""
    kind = chance.choice(["KILL", "KILL", "TERM"])
    if chance.random() < 0.75:
        return Fate(kind, random_write(chance, writes), chance.choice([0.0, 1e-4, 2e-3]))
    return Fate(kind, None, chance.uniform(0.0, seconds))


def random_failure(chance: random.Random, writes: list[str]) -> Fate:
    """Return an error at a random write, or a limit on the size of files."""
    kind = chance.choice([*FAILURES, "FSIZE"])
    if kind == "FSIZE":
        return Fate(kind, size=chance.randrange(0, 60_000))
    return Fate(kind, random_write(chance, writes))
