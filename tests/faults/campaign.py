"""Commands are killed, their writes fail, their files are damaged: the result must not change."""

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from iirc_data.errors import IIRCError
from iirc_data.shards.verify import verify
from iirc_train.buffer.store import BufferStore
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.record import read_record
from tests.faults.saboteur import NOTHING, SIGNALS, End, Fate, random_failure, random_kill, run

ENDS_OF_KILLED = {-SIGNALS["KILL"], -SIGNALS["TERM"], 128 + SIGNALS["TERM"]}  # 143: orderly
KILLS_PER_ROUND = 5
UNGUARDED = {"confusion"}  # its files have their own checksums, verified when they are read

Words = tuple[str, list[str]]
"""An entry point and its arguments."""


@dataclass(frozen=True)
class Command:
    """A command under test.

    Attributes:
        name: Name of the command.
        words: Maps the folder that it writes to, to its entry point and arguments.
        content: Maps that folder to the content that must be the same after any faults.
    """

    name: str
    words: Callable[[Path], Words]
    content: Callable[[Path], object]


@dataclass
class Tally:
    """Counts of the faults of a command, and the problems they caused."""

    kills: int = 0
    failures: int = 0
    damages: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    problems: list[str] = field(default_factory=list)


class Campaign:
    """Fault trials of one command, compared with the result of an uninterrupted run."""

    def __init__(self, command: Command, folder: Path, seed: int) -> None:
        self.command = command
        self.tally = Tally()
        self._chance = random.Random(f"{seed} {command.name}")
        self._folder = folder
        self._notes = folder / "notes"
        self._notes.mkdir(parents=True)
        self._out = folder / "out"
        started = time.monotonic()
        end = self._run()
        self._seconds = time.monotonic() - started
        assert end.status == 0, (command.name, end)
        self._writes = end.writes
        self._expected = command.content(self._out)

    def kill(self, n: int) -> None:
        """Kill the command n times; let it finish after every ``KILLS_PER_ROUND`` kills."""
        while self.tally.kills < n:
            self._clear()
            for _ in range(KILLS_PER_ROUND):
                if self.tally.kills >= n:
                    break
                end = self._run(random_kill(self._chance, self._writes, self._seconds))
                if end.status in ENDS_OF_KILLED:
                    self.tally.kills += 1
                    self.tally.moments[end.moment] += 1
                elif end.status and not end.was_finished:
                    self._note(f"ended with {end.status}: {end.told[-300:]}")
                else:
                    break
            self._finish("after kills")

    def fail(self, n: int) -> None:
        """Fail n writes: the command must report each in one line, and resume when run again."""
        for _ in range(n):
            self._clear()
            fate = random_failure(self._chance, self._writes)
            end = self._run(fate)
            self.tally.failures += 1
            if end.status and not end.is_explained:
                self._note(f"{fate} ended with {end.status}: {end.told[-600:]}")
            self._finish(f"after {fate}")

    def damage(self, n: int) -> None:
        """Damage a file of an interrupted run n times: it is rejected, or the result is right."""
        for _ in range(n):
            self._clear()
            n_writes = len(self._writes)
            self._run(Fate("KILL", self._chance.randrange(n_writes // 2, n_writes)))
            files = sorted(
                path
                for path in self._out.rglob("*")
                if path.is_file() and path.parent.name not in UNGUARDED
            )
            if not files:
                continue
            path = self._chance.choice(files)
            what = f"{self._alter(path)} {path.relative_to(self._out)}"
            self.tally.damages += 1
            end = self._run()
            if end.status:
                self.tally.refused += 1
                if not end.is_explained:
                    self._note(f"{what}: ended with {end.status}: {end.told[-600:]}")
            else:
                try:
                    if self.command.content(self._out) != self._expected:
                        self._note(f"{what}: unnoticed, and the result differs")
                except IIRCError:  # the run had finished: readers get the error
                    self.tally.refused += 1

    def _run(self, fate: Fate = NOTHING) -> End:
        entry, arguments = self.command.words(self._out)
        return run(entry, arguments, self._out, self._notes, fate)

    def _clear(self) -> None:
        shutil.rmtree(self._out, ignore_errors=True)

    def _finish(self, when: str) -> None:
        end = self._run()
        if end.status and not end.was_finished:
            self._note(f"{when}: cannot resume: {end.status} {end.told[-600:]}")
            return
        try:
            if self.command.content(self._out) != self._expected:
                self._note(f"{when}: the result differs")
        except IIRCError as error:
            self._note(f"{when}: the result is not readable: {error}")

    def _alter(self, path: Path) -> str:
        data = bytearray(path.read_bytes())
        what = self._chance.choice(["lost", "cut", "flipped"])
        if what == "lost":
            path.unlink()
        elif what == "cut" or not data:
            path.write_bytes(data[: self._chance.randrange(len(data) + 1)])
        else:
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
            path.write_bytes(data)
        return what

    def _note(self, problem: str) -> None:
        self.tally.problems.append(f"{self.command.name}: {problem}")


# --- content to compare ------------------------------------------------------------------------


def dataset_content(out: Path) -> object:
    """Return the problems that verifying a dataset finds, and the digests of its files."""
    problems = verify(out, workers=1).problems
    names = ["manifest.json", "index.npz", *(str(p.relative_to(out)) for p in out.rglob("*.tar"))]
    return problems, {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


def run_content(out: Path) -> object:
    """Return the metrics of a run, and digests of its memories and of its last checkpoint."""
    state = load_checkpoint(out / "checkpoints" / "last.pt")
    buffer = state["experiment"]["buffer"]
    store = BufferStore(out / "buffer.zarr")
    memories = [store.read_class(n, name) for n, name in enumerate(buffer["counts"])]
    return {
        "metrics": (out / "metrics.jsonl").read_text(),
        "counts": buffer["counts"],
        "memories": [
            hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            for memory in memories
            for array in (memory.data, memory.labels)
        ],
        "confusion": {
            path.name: {name: array.tolist() for name, array in np.load(path).items()}
            for path in sorted((out / "confusion").glob("*.npz"))
        },
        "state": _digest(state["experiment"]["method"]),
    }


@dataclass
class Near:
    """Weights, equal to others within 1e-4."""

    weights: dict[str, torch.Tensor]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and all(
            torch.allclose(value, other.weights[name], atol=1e-4, rtol=1e-4)
            for name, value in self.weights.items()
        )


def counted_content(out: Path) -> object:
    """Return how often each sample was shown in a run, and what else its processes do not change.

    The weights are those of an uninterrupted run up to rounding.
    """
    state = load_checkpoint(out / "checkpoints" / "last.pt")
    modules = dict(state["experiment"]["method"]["modules"])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "shown": modules.pop("shown").tolist(),
        "weights": Near(modules),
        "counts": state["experiment"]["buffer"]["counts"],
        "lines": [(line.get("task"), line.get("epoch"), line.get("after_task")) for line in lines],
    }


def sweep_content(out: Path) -> object:
    """Return the content of each run, and whether it was trained once from start to end."""
    runs = sorted(path.parent for path in out.rglob("config.yaml"))
    assert runs, f"{out} holds no run"
    return {str(run.relative_to(out)): (run_content(run), _was_trained_once(run)) for run in runs}


def _was_trained_once(run: Path) -> bool:
    """Return whether each session of a run went on from an earlier one, and only the last ended."""
    sessions = read_record(run)["sessions"]
    positions = [tuple(session["position"].values()) for session in sessions]
    ends = ["finished" in session for session in sessions]
    return positions == sorted(positions) and ends.index(True) == len(ends) - 1


def _digest(value: object) -> str:
    digest = hashlib.sha256()

    def add(part: object) -> None:
        if isinstance(part, dict):
            for key in sorted(part, key=str):
                digest.update(str(key).encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for item in part:
                add(item)
        elif isinstance(part, torch.Tensor):
            digest.update(part.detach().numpy().tobytes())
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()
