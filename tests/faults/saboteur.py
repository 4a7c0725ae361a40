"""A command that runs in a child process and meets its fate at a chosen moment.

The child is forked from a server that has the imports done, and runs the real entry point.
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
SECONDS = 300  # after which a command hangs

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
    ".tar": "shard",
    ".lock": "lock",
}


@dataclass(frozen=True)
class Fate:
    """What befalls a command.

    Attributes:
        kind: ``"KILL"`` or ``"TERM"``, a signal; ``"EIO"``, ``"ENOSPC"`` or ``"EROFS"``, an error
            of the system; ``"FSIZE"``, a limit on the size of files; ``""``, nothing.
        at_write: Number of the write to the folder at which it comes; None for ``after``.
        after: Seconds after that write (0 for right before it), or after the start.
        size: For ``"FSIZE"``, in bytes.
    """

    kind: str = ""
    at_write: int | None = None
    after: float = 0.0
    size: int = 0


NOTHING = Fate()


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        status: Exit status; negative for a signal.
        told: What it wrote on standard output and standard error.
        moment: What was being written when its fate came; ``"between writes"`` for nothing.
        writes: For each write to the folder, what was written.
    """

    status: int
    told: str
    moment: str
    writes: list[str]

    @property
    def is_explained(self) -> bool:
        """Whether it failed by an error of one line."""
        return self.status == 1 and any(
            line.startswith("error: ") or " failed, see" in line  # the latter of a sweep's run
            for line in self.told.splitlines()
        )

    @property
    def was_finished(self) -> bool:
        """Whether an earlier run had come to its end, so that there was nothing to do."""
        return self.status == 1 and "already holds a finished dataset" in self.told


def part_of(path: str) -> str:
    """Return what a file belongs to."""
    for name, part in PARTS.items():
        if name in path:
            return part
    return "folder"


def run(entry: str, arguments: list[str], folder: Path, notes: Path, fate: Fate = NOTHING) -> End:
    """Run a command to its end.

    Args:
        entry: ``"iirc"``, or the module of a tool.
        arguments: Its arguments.
        folder: The folder whose writes count.
        notes: Where the child leaves what it told.
        fate: What befalls it.
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
    if half_written:
        moment = part_of(str(half_written[0].relative_to(folder)))
    writes = (notes / "writes").read_text().splitlines() if (notes / "writes").exists() else []
    told = (notes / "told").read_text(errors="replace") if (notes / "told").exists() else ""
    assert process.exitcode is not None
    return End(process.exitcode, told, moment, writes)


def _child(entry: str, arguments: list[str], folder: Path, notes: Path, fate: Fate) -> None:
    os.setsid()  # what it starts is in one group with it, and meets the same fate
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
        with lock:
            number, n_writes = n_writes, n_writes + 1
            if fate.kind != "FSIZE":  # whose limit would count for this file too
                os.write(counter, f"{part_of(path[len(folder) :])}\n".encode())
        if number != fate.at_write:
            return
        os.ftruncate(moment, 0)
        os.pwrite(moment, part_of(path[len(folder) :]).encode(), 0)
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
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(leader, SIGNALS[kind])


def _written_path(event: str, values: tuple[object, ...]) -> str | None:
    """Return the file or folder that an audit event is about to change; None for none."""
    if event == "open":
        path, mode, flags = values
        writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")  # type: ignore[operator, call-overload]
    else:
        path, writes = values[0] if values else None, event in WRITING_EVENTS
    return os.fsdecode(path) if writes and isinstance(path, str | bytes | os.PathLike) else None


def random_write(chance: random.Random, writes: list[str]) -> int:
    """Return the number of a write, every part of a folder as likely as every other."""
    part = chance.choice(sorted(set(writes)))
    return chance.choice([number for number, written in enumerate(writes) if written == part])


def random_kill(chance: random.Random, writes: list[str], seconds: float) -> Fate:
    """Return a kill: three of four at a write or just after it begins, the others anywhere."""
    kind = chance.choice(["KILL", "KILL", "TERM"])
    if chance.random() < 0.75:
        return Fate(kind, random_write(chance, writes), chance.choice([0.0, 1e-4, 2e-3]))
    return Fate(kind, None, chance.uniform(0.0, seconds))


def random_failure(chance: random.Random, writes: list[str]) -> Fate:
    """Return an error of the system at some write, or a limit on the size of files."""
    kind = chance.choice([*FAILURES, "FSIZE"])
    if kind == "FSIZE":
        return Fate(kind, size=chance.randrange(0, 60_000))
    return Fate(kind, random_write(chance, writes))
