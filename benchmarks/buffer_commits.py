"""The cost of the replay buffer after each task, as the number of classes grows.

    python -m benchmarks.buffer_commits --classes 300

After each task, the buffer writes and commits the memories of the task's classes, removes earlier
generations, and creates the replay source of the next task. The same run measures, in alternation,
a buffer that syncs its whole folder after each commit. ``--folder`` must be on a disk: syncing a
file system in memory costs nothing.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from iirc_data.console import run_tool
from iirc_data.definitions import NO_LABEL_PLACEHOLDER
from iirc_data.files import sync_tree
from iirc_data.loader.decoder import encode_rgb_png
from iirc_train.buffer.buffer import RandomBuffer
from iirc_train.buffer.class_arrays import Memory
from iirc_train.buffer.store import BufferStore

_ENDS = 5  # number of first and of last commits whose medians are compared
GOAL_SECONDS = 20.0
GOAL_GROWTH = 2.0


class SyncingAll(BufferStore):
    """A store that syncs its whole folder after each commit."""

    def commit(self, counts: dict[str, int]) -> int:  # type: ignore[override]
        """Write a generation, and sync everything in the folder."""
        generation = super().commit(counts)
        assert self.path is not None
        sync_tree(self.path)
        return generation


class Growing:
    """A buffer that grows class by class, with the duration of each step.

    Args:
        folder: Folder of the buffer.
        memories: Memories of each class.
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
        """Add the classes of a task, then do what the trainer does before the next task."""
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
        """Median duration of the last commits, divided by that of the first commits."""
        commits = self.seconds["commit"]
        return median(commits[-_ENDS:]) / median(commits[:_ENDS])


def drawn_memories(n: int, width: int) -> list[Memory]:
    """Return memories of noise, which PNG cannot compress."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, width, width, 3), dtype=np.uint8)
    labels = (NO_LABEL_PLACEHOLDER, NO_LABEL_PLACEHOLDER)
    return [
        Memory(encode_rgb_png(Image.fromarray(image)).tobytes(), labels, width, width)
        for image in images
    ]


def main(
    classes: Annotated[int, typer.Option(min=1, help="Number of classes at the end.")] = 300,
    classes_per_task: Annotated[int, typer.Option(min=1, help="Classes per commit.")] = 5,
    memories: Annotated[int, typer.Option(help="Memories per class.")] = 20,
    width: Annotated[int, typer.Option(help="Pixels per side of a memory.")] = 32,
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk. [default: the temporary folder]")
    ] = None,
) -> None:
    """Measure, and print the first, the last and the total duration of each step."""
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
    run_tool(main)
