"""What the replay buffer costs after each task, as classes add up.

    python -m benchmarks.buffer_commits --classes 300

After each task its classes' memories are written and committed, earlier generations are removed,
and the next task's replay source is made. Beside it, in the same run and in turns, the same buffer
with the whole folder synced after each commit, as before version 3. On a disk, please: where
``--folder`` is in memory, syncing costs nothing.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from iirc_data.definitions import NO_LABEL_PLACEHOLDER
from iirc_data.files import sync_tree
from iirc_data.loader.decoder import encode_rgb_png
from iirc_train.buffer.buffer import RandomBuffer
from iirc_train.buffer.store import BufferStore, Memory

_ENDS = 5  # commits at the start and at the end whose medians are compared
GOAL_SECONDS = 20.0
GOAL_GROWTH = 2.0


class SyncingAll(BufferStore):
    """A store that syncs its whole folder after each commit."""

    def commit(self, counts: dict[str, int]) -> int:  # type: ignore[override]
        """Write a generation, and sync whatever the folder holds."""
        generation = super().commit(counts)
        assert self.path is not None
        sync_tree(self.path)
        return generation


class Growing:
    """A buffer that learns class after class, and how long each step took.

    Args:
        folder: Where it is kept.
        memories: What it keeps of each class.
        syncs_all: Sync the whole folder after each commit.
    """

    def __init__(self, folder: Path, memories: list[Memory], *, syncs_all: bool) -> None:
        self.buffer = RandomBuffer({"n_memories_per_class": len(memories)}, buffer_dir=folder)
        if syncs_all:
            self.buffer.store = SyncingAll(folder)
        self.folder = folder
        self.seconds: dict[str, list[float]] = {"commit": [], "collect": [], "replay source": []}
        self._memories = memories

    def learn(self, names: list[str]) -> None:
        """Add a task's classes, then do what the trainer does until the next task begins."""
        started = time.perf_counter()
        self.buffer.begin_adding_samples()
        for name in names:
            for memory in self._memories:
                self.buffer.add_memory(name, memory)
        self.buffer.end_adding_samples()
        committed = time.perf_counter()
        self.buffer.collect_garbage()
        collected = time.perf_counter()
        indices = {name: i for i, name in enumerate(self.buffer.n_memories_per_class)}
        self.buffer.replay_source(indices)
        ended = time.perf_counter()
        for of_step, duration in zip(
            self.seconds.values(),
            (committed - started, collected - committed, ended - collected),
            strict=True,
        ):
            of_step.append(duration)

    @property
    def growth(self) -> float:
        """Median of the last commits, in multiples of that of the first."""
        commits = self.seconds["commit"]
        return median(commits[-_ENDS:]) / median(commits[:_ENDS])


def drawn_memories(n: int, width: int) -> list[Memory]:
    """Return memories of noise: PNG makes them no smaller."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, width, width, 3), dtype=np.uint8)
    labels = (NO_LABEL_PLACEHOLDER, NO_LABEL_PLACEHOLDER)
    return [
        Memory(encode_rgb_png(Image.fromarray(image)).tobytes(), labels, width, width)
        for image in images
    ]


def main(
    classes: Annotated[int, typer.Option(min=1, help="Classes in the end.")] = 300,
    classes_per_task: Annotated[int, typer.Option(min=1, help="Classes of each commit.")] = 5,
    memories: Annotated[int, typer.Option(help="Memories of each class.")] = 20,
    width: Annotated[int, typer.Option(help="Pixels per side of a memory.")] = 32,
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk. [default: the temporary folder]")
    ] = None,
) -> None:
    """Measure; print first, last and sum of each step's times."""
    names = [f"class {number}" for number in range(classes)]
    kept = drawn_memories(memories, width)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        contenders = {
            name: Growing(Path(temporary, name.replace(" ", "-")), kept, syncs_all=syncs_all)
            for name, syncs_all in (("what was written", False), ("the whole folder", True))
        }
        for first in range(0, classes, classes_per_task):
            for contender in contenders.values():
                contender.learn(names[first : first + classes_per_task])
        n_files = sum(path.is_file() for path in contenders["what was written"].folder.rglob("*"))
    n_commits = len(contenders["what was written"].seconds["commit"])
    print(
        f"{classes} classes in {n_commits} commits, {memories} memories of {width} x {width} each; "
        f"{n_files / classes:.1f} files per class"
    )
    for name, contender in contenders.items():
        for step, seconds in contender.seconds.items():
            print(
                f"syncing {name}: {step:13} first {seconds[0] * 1e3:7.1f} ms, "
                f"last {seconds[-1] * 1e3:7.1f} ms, sum {sum(seconds):7.2f} s"
            )
    ours, peer = (contender.seconds["commit"] for contender in contenders.values())
    growth = contenders["what was written"].growth
    print(f"the whole folder takes {median(peer) / median(ours):.1f} times as long (medians)")
    met = sum(ours) < GOAL_SECONDS and growth < GOAL_GROWTH
    print(
        f"the last {_ENDS} commits take {growth:.2f} times as long as the first {_ENDS} (medians); "
        f"goal of {GOAL_SECONDS:.0f} s in all and {GOAL_GROWTH:.0f} times: "
        f"{'met' if met else 'missed'}"
    )


if __name__ == "__main__":
    typer.run(main)
